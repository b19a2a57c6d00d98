"""The calls for a program that embeds taskd: keyword arguments in, tasks out, the same rules as for any client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from taskd.domain.arguments import pairs, plain
from taskd.domain.forms import parse_batch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.history import HistoryPage, parse_history_query
from taskd.domain.model import NewTask, Page, Role, Task, User
from taskd.domain.search import SearchPage, parse_search_query
from taskd.service.ports import Tasks


class LocalTasks:
    """The task calls of an embedding program, which sees every owner's tasks.

    `owner` says whom a new task belongs to; all arguments are the fields of the REST calls, checked alike. Every
    method raises `Invalid` for bad fields, `NotFound`, `Conflict` and `Unavailable`.
    """

    def __init__(self, tasks: Tasks, owner: str = "anonymous") -> None:
        self._tasks = tasks
        self._owner = owner

    def _user(self, owner: str | None = None) -> User:
        return User(owner or self._owner, Role.ADMIN)

    async def create(
        self, title: str, *, owner: str | None = None, idempotency_key: str | None = None, **fields: Any
    ) -> Task:
        """Create a task from `title`, `kind`, `description`, `payload`, `priority`, `run_at` (aware datetime or
        RFC 3339 text), `max_attempts`, `timeout_seconds` (seconds)."""
        draft = parse_new_task(plain({"title": title, **fields}))
        return await self._tasks.create(self._user(owner), draft, idempotency_key)

    async def create_many(self, tasks: Iterable[Mapping[str, Any]], *, owner: str | None = None) -> list[Task]:
        """Create 1 to 1000 tasks, all or none, each a mapping of the fields that `create` takes."""
        drafts: list[NewTask] = parse_batch({"tasks": [plain(fields) for fields in tasks]})
        return await self._tasks.create_many(self._user(owner), drafts)

    async def get(self, task_id: UUID) -> Task:
        """Return one task."""
        return await self._tasks.get(self._user(), task_id)

    async def list(self, **query: str | int) -> Page:
        """Return one page; `query` is that of `GET /tasks`: `status`, `kind`, `owner`, `limit`, `order`, …"""
        return await self._tasks.list(self._user(), parse_list_query(self._user(), pairs(query)))

    async def search(self, query: str, **filters: str | int | bool) -> SearchPage:
        """Return one page of what was found; `filters` are those of `GET /search`: `prefix`, `status`, `kind`, …"""
        asked = parse_search_query(self._user(), pairs({"query": query, **filters}))
        return await self._tasks.search(self._user(), asked)

    async def update(self, task_id: UUID, **fields: Any) -> Task:
        """Change fields of a task; the last five of `create`'s only while it waits."""
        return await self._tasks.update(self._user(), task_id, parse_patch(plain(fields)))

    async def delete(self, task_id: UUID) -> None:
        """Remove a task that does not run."""
        await self._tasks.delete(self._user(), task_id)

    async def cancel(self, task_id: UUID) -> Task:
        """Cancel a task."""
        return await self._tasks.cancel(self._user(), task_id)

    async def retry(self, task_id: UUID) -> Task:
        """Put a failed or cancelled task back to `new`."""
        return await self._tasks.retry(self._user(), task_id)

    async def history(self, task_id: UUID, **query: str | int) -> HistoryPage:
        """Return one page of a task's events that are still kept, oldest first; `query` is `limit` and `cursor`."""
        return await self._tasks.history(self._user(), parse_history_query(task_id, pairs(query)))
