"""What users may do with tasks: owners respected, reads and creates batched, every commit announced.

Creates and reads by id go through a `Batcher`: while one statement is in flight the next callers queue up, and the
following statement takes them all. Everything else is rare enough for a statement of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from taskd.domain.codec import dump_json, format_time
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryPage, HistoryQuery
from taskd.domain.model import ListQuery, NewTask, Page, Task, User
from taskd.domain.search import SearchPage, SearchQuery
from taskd.errors import NotFound
from taskd.runtime.batcher import Batcher

if TYPE_CHECKING:
    # A process that has another's service in place of this one has no database, and no driver for it.
    from taskd.store.search import SearchStore
    from taskd.store.tasks import TaskStore


def _fingerprint(drafts: Sequence[NewTask], batch: bool) -> bytes:
    """Return what two requests with the same idempotency key must have in common."""
    fields = [
        (
            draft.title,
            draft.kind,
            draft.description,
            draft.payload_json,
            draft.priority,
            draft.run_at and format_time(draft.run_at),
            draft.max_attempts,
            draft.timeout_seconds,
        )
        for draft in drafts
    ]
    return hashlib.sha256(dump_json([batch, fields]).encode()).digest()


def _seen_by(user: User) -> str | None:
    """Return the owner that the user is bound to, None for one who sees all."""
    return None if user.sees_all else user.name


class TaskService:
    """Implements `ports.Tasks` on one database.

    Args:
        store: where tasks are.
        found: finds them by their words.
        committed: called after each commit that left an event.
    """

    def __init__(self, store: TaskStore, found: SearchStore, committed: Callable[[], None]) -> None:
        self._store = store
        self._found = found
        self._committed = committed
        self._creates: Batcher[tuple[str, NewTask], Task] = Batcher(store.insert)
        self._reads: Batcher[UUID, Task] = Batcher(self._read)

    async def close(self) -> None:
        """Finish what is under way, and take nothing more."""
        await self._creates.close()
        await self._reads.close()

    async def create(self, user: User, draft: NewTask, key: str | None = None) -> Task:
        """Create one task; see `ports.Tasks`."""
        if key is None:
            task = await self._creates.submit((user.name, draft))
        else:
            [task] = await self._store.insert_once(user.name, [draft], key, _fingerprint([draft], batch=False))
        self._committed()
        return task

    async def create_many(self, user: User, drafts: Sequence[NewTask], key: str | None = None) -> list[Task]:
        """Create tasks, all or none; see `ports.Tasks`."""
        if key is None:
            tasks = await self._store.insert([(user.name, draft) for draft in drafts])
        else:
            tasks = await self._store.insert_once(user.name, drafts, key, _fingerprint(drafts, batch=True))
        self._committed()
        return list(tasks)

    async def get(self, user: User, task_id: UUID) -> Task:
        """Return one task; see `ports.Tasks`."""
        task = await self._reads.submit(task_id)
        if not user.sees_all and task.owner != user.name:
            raise not_found(task_id)
        return task

    async def list(self, user: User, query: ListQuery) -> Page:
        """Return one page of tasks; see `ports.Tasks`."""
        return await self._store.list(query)

    async def update(self, user: User, task_id: UUID, patch: TaskPatch, if_match: frozenset[int] | None = None) -> Task:
        """Change a task; see `ports.Tasks`."""
        task = await self._store.update(_seen_by(user), task_id, patch, if_match)
        self._committed()
        return task

    async def delete(self, user: User, task_id: UUID, if_match: frozenset[int] | None = None) -> Task:
        """Remove a task; see `ports.Tasks`."""
        task = await self._store.delete(_seen_by(user), task_id, if_match)
        self._committed()
        return task

    async def cancel(self, user: User, task_id: UUID) -> Task:
        """Cancel a task; see `ports.Tasks`."""
        task = await self._store.cancel(_seen_by(user), task_id)
        self._committed()
        return task

    async def retry(self, user: User, task_id: UUID) -> Task:
        """Put a task back to `new`; see `ports.Tasks`."""
        task = await self._store.retry(_seen_by(user), task_id)
        self._committed()
        return task

    async def history(self, user: User, query: HistoryQuery) -> HistoryPage:
        """Return one page of a task's events; see `ports.Tasks`."""
        return await self._store.history(_seen_by(user), query)

    async def search(self, user: User, query: SearchQuery) -> SearchPage:
        """Return one page of what was found; see `ports.Tasks`."""
        return await self._found.search(query)

    async def _read(self, ids: Sequence[UUID]) -> Sequence[Task | Exception]:
        found = {task.id: task for task in await self._store.get_many(ids)}
        return [found.get(task_id) or not_found(task_id) for task_id in ids]


def not_found(task_id: UUID) -> NotFound:
    """Return the error of a task that is not there, or not this user's."""
    return NotFound(f"there is no task {task_id}")
