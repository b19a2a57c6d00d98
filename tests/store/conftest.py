"""The stores on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from taskd.domain.model import NewTask, Task
from taskd.store.claims import ClaimStore
from taskd.store.leases import LeaseStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url, max_size=20)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
def tasks(database: Database) -> TaskStore:
    return TaskStore(database)


@pytest.fixture
async def claims(database: Database) -> AsyncIterator[ClaimStore]:
    found = ClaimStore(database)
    yield found
    await found.close()


@pytest.fixture
def leases(database: Database) -> LeaseStore:
    return LeaseStore(database, grace=0.0)


@pytest.fixture
async def lease(leases: LeaseStore) -> UUID:
    """A registered lease."""
    found = uuid4()
    await leases.register(found, "all", "test")
    return found


class Maker:
    """Makes tasks with few words."""

    def __init__(self, tasks: TaskStore) -> None:
        self._tasks = tasks

    async def one(self, title: str = "title", *, owner: str = "ann", **fields: Any) -> Task:
        [task] = await self._tasks.insert([(owner, NewTask(title, **fields))])
        return task

    async def many(self, number: int, *, owner: str = "ann", **fields: Any) -> list[Task]:
        return await self._tasks.insert([(owner, NewTask(f"task {n}", **fields)) for n in range(number)])


@pytest.fixture
def make(tasks: TaskStore) -> Maker:
    return Maker(tasks)
