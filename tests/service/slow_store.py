"""A store whose reads can be held open where a database would be slow, and one process's view of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from taskd.cache.memory import MemoryCache
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryPage, HistoryQuery
from taskd.domain.model import ListQuery, NewTask, Page, Role, Status, Task, User
from taskd.errors import NotFound
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.service.cached import CachedReads, CachedTasks
from taskd.service.ports import View
from taskd.service.views import view_size
from tests.ws.serving import make_task

ANN, BEN, ROOT = User("ann"), User("ben"), User("root", Role.ADMIN)
ONE, TWO = UUID(int=1), UUID(int=2)


class Store:
    """The port `Tasks` over a dict. `held` makes reads take their answer at once and give it later, as a slow one."""

    def __init__(self) -> None:
        self.tasks: dict[UUID, Task] = {}
        self.held: list[asyncio.Event] | None = None
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.reads = 0

    def put(self, task: Task) -> None:
        self.tasks[task.id] = task

    async def get(self, user: User, task_id: UUID) -> Task:
        self.reads += 1
        task = self.tasks.get(task_id)
        await self._hold()
        if self.error is not None:
            raise self.error
        if task is None:
            raise NotFound("none")
        return task

    async def list(self, user: User, query: ListQuery) -> Page:
        self.reads += 1
        found = tuple(
            task
            for task in self.tasks.values()
            if query.owner in (None, task.owner) and (not query.statuses or task.status in query.statuses)
        )
        await self._hold()
        return Page(found, None)

    async def _hold(self) -> None:
        if self.held is not None:
            gate = asyncio.Event()
            self.held.append(gate)
            await gate.wait()

    async def create(self, user: User, draft: NewTask, key: str | None = None) -> Task:
        task = make_task(user.name, number=len(self.tasks) + 1, title=draft.title)
        self.put(task)
        self._fail()
        return task

    async def create_many(self, user: User, drafts: Sequence[NewTask], key: str | None = None) -> list[Task]:
        return [await self.create(user, draft) for draft in drafts]

    async def update(self, user: User, task_id: UUID, patch: TaskPatch, if_match: frozenset[int] | None = None) -> Task:
        return self._change(task_id, title=patch.fields["title"])

    async def delete(self, user: User, task_id: UUID, if_match: frozenset[int] | None = None) -> Task:
        task = self.tasks.pop(task_id)
        self._fail()
        return task

    async def cancel(self, user: User, task_id: UUID) -> Task:
        return self._change(task_id, status=Status.CANCELLED)

    async def retry(self, user: User, task_id: UUID) -> Task:
        return self._change(task_id, status=Status.NEW)

    async def history(self, user: User, query: HistoryQuery) -> HistoryPage:
        return HistoryPage((), None)

    def _change(self, task_id: UUID, **values: object) -> Task:
        if self.refusal is not None:
            raise self.refusal
        task = self.tasks[task_id]
        self.put(replace(task, version=task.version + 1, **values))  # type: ignore[arg-type]
        self._fail()
        return self.tasks[task_id]

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class World:
    """One process's view of a store."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = Store()
        self.catalog = Catalog()
        self.cache: MemoryCache[View] = MemoryCache(
            Supervisor(), ttl=30, entries=1000, size=1_000_000, size_of=view_size, clock=lambda: self.now
        )
        self.reads = CachedReads(self.store, self.cache, self.catalog)
        self.tasks = CachedTasks(self.store, self.reads)

    def counted(self, cache: str = "task") -> tuple[int, ...]:
        """Return hits, misses and coalesced reads."""
        requests = self.catalog.cache_requests
        return tuple(int(requests.labels(cache, result).value) for result in ("hit", "miss", "coalesced"))

    async def version(self, task_id: UUID = ONE, user: User = ANN) -> int:
        return int((await self.reads.task(user, task_id)).etag)

    async def titles(self, owner: str | None = "ann", *statuses: str) -> list[str]:
        query = ListQuery(owner, tuple(map(Status, statuses)))
        return [task["title"] for task in json.loads((await self.reads.page(ANN, query)).body)["tasks"]]
