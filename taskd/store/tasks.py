"""Tasks as users see and change them.

`owner` of a call is whom the caller is bound to: another owner's task is `NotFound`. None sees all. Every method
raises `Unavailable` when the database is away.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import starmap
from typing import Any, TypeVar
from uuid import UUID

from taskd.domain.codec import decode_task, encode_tasks
from taskd.domain.cursor import decode_list_cursor, encode_list_cursor
from taskd.domain.event import Event, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.history import PAGE_BYTES, HistoryPage, HistoryQuery, cursor_behind
from taskd.domain.model import ListQuery, NewTask, Page, Task
from taskd.errors import KeyReused, NotFound
from taskd.metrics.catalog import Catalog
from taskd.store.changes import cancelled, check_deletable, check_version, patched, rerun
from taskd.store.pool import Database, Row, Runner, Session
from taskd.store.rows import TASK_COLUMNS, event_of, task_of
from taskd.store.statements import compose, load

_SQL = load("tasks")

T = TypeVar("T")

HISTORY_STEP = 10
"""Events of a history that are read at once: each may be more than a megabyte."""


class TaskStore:
    """The tasks of one database.

    Args:
        catalog: where created and cancelled tasks are counted, once they are committed.
    """

    def __init__(self, database: Database, catalog: Catalog | None = None) -> None:
        self._database = database
        self._catalog = catalog or Catalog()

    async def insert(self, drafts: Sequence[tuple[str, NewTask]]) -> list[Task]:
        """Create tasks, each for its owner, in one statement: all or none, in their order."""
        tasks = await _insert(self._database, drafts)
        self._count_created(tasks)
        return tasks

    async def insert_once(self, owner: str, drafts: Sequence[NewTask], key: str, fingerprint: bytes) -> list[Task]:
        """Create tasks, or return what the first call with this `key` and owner returned in the last 24 hours.

        Args:
            fingerprint: what the request was; a digest of any length.

        Raises:
            KeyReused: the key came with another fingerprint.
        """
        async with self._database.transaction() as session:
            if await session.fetchval(_SQL["claim_key"], owner, key, fingerprint) is None:
                return await _first_answer(session, owner, key, fingerprint)
            tasks = await _insert(session, [(owner, draft) for draft in drafts])
            await session.execute(_SQL["keep_answer"], owner, key, encode_tasks(tasks).decode())
        self._count_created(tasks)
        return tasks

    async def get_many(self, ids: Sequence[UUID]) -> list[Task]:
        """Return those of the tasks that are there, in any order."""
        return [task_of(row) for row in await self._database.fetch(_SQL["get_many"], ids)]

    async def list(self, query: ListQuery) -> Page:
        """Return one page, in the order of (created_at, id).

        Raises:
            Invalid: the cursor is none, or of another list.
        """
        after = None if query.cursor is None else decode_list_cursor(query, query.cursor)
        statement, args = compose(_SQL["page"], _page_values(query, after), _page_flags(query))
        tasks = tuple(task_of(row) for row in await self._database.fetch(statement, *args))
        if len(tasks) <= query.limit:
            return Page(tasks, None)
        last = tasks[query.limit - 1]
        return Page(tasks[: query.limit], encode_list_cursor(query, (last.created_at, last.id)))

    async def update(
        self, owner: str | None, task_id: UUID, patch: TaskPatch, if_match: Collection[int] | None = None
    ) -> Task:
        """Change a task and return it. A patch that changes nothing leaves no event and no new version.

        Raises:
            NotFound: no such task of this owner.
            StaleVersion: its version is not in `if_match`.
            Conflict: it no longer waits, and the patch is not of title and description only.
            Invalid: the merged payload is too large.
        """
        async with self._database.transaction() as session:
            task, now = await _lock(session, owner, task_id)
            check_version(task, if_match)
            changed = patched(task, patch, now)
            if changed is task:
                return task
            content = (changed.title, changed.description, changed.payload_json)
            if content != (task.title, task.description, task.payload_json):
                await session.execute(_SQL["keep_content"], [task_id])
                await session.execute(_SQL["set_content"], task_id, *content)
            return await _write(session, changed, EventType.UPDATED)

    async def delete(self, owner: str | None, task_id: UUID, if_match: Collection[int] | None = None) -> Task:
        """Remove a task, and return it as it was.

        Raises:
            NotFound: no such task of this owner.
            StaleVersion: its version is not in `if_match`.
            Conflict: it runs.
        """
        async with self._database.transaction() as session:
            task, _ = await _lock(session, owner, task_id)
            check_version(task, if_match)
            check_deletable(task)
            await delete_locked(session, [task_id])
            return task

    async def cancel(self, owner: str | None, task_id: UUID) -> Task:
        """Cancel a task; a running one gets `cancel_requested_at`. Cancelled already: it is returned as it is.

        Raises:
            NotFound: no such task of this owner.
            Conflict: it is done or failed.
        """
        async with self._database.transaction() as session:
            task, now = await _lock(session, owner, task_id)
            changed, event = cancelled(task, now)
            if changed is task:
                return task
            changed = await _write(session, changed, event)
        if changed.is_final:
            self._catalog.finished.labels(changed.kind, changed.status.value).inc()
        return changed

    async def retry(self, owner: str | None, task_id: UUID) -> Task:
        """Put a failed or cancelled task back to `new`, its attempts counted anew.

        Raises:
            NotFound: no such task of this owner.
            Conflict: it is neither failed nor cancelled.
        """
        async with self._database.transaction() as session:
            task, now = await _lock(session, owner, task_id)
            return await _write(session, rerun(task, now), EventType.UPDATED)

    async def history(self, owner: str | None, query: HistoryQuery) -> HistoryPage:
        """Return one page of a task's events that are still kept, in the order of its versions.

        Raises:
            NotFound: no such task of this owner.
        """
        found = await self._database.fetchval(_SQL["owner_of"], query.task_id)
        if found is None or owner not in (None, found):
            raise _not_found(query.task_id)
        events: list[Event] = []
        size, after = 0, query.after
        while len(events) < query.limit and size < PAGE_BYTES:
            asked = min(HISTORY_STEP, query.limit - len(events))
            # One more, to see whether there is one.
            rows = await self._database.fetch(_SQL["history"], query.task_id, after, asked + 1)
            for row in rows[:asked]:
                events.append(event := event_of(row))
                size, after = size + len(event.json), event.task.version
                if size >= PAGE_BYTES:
                    break
            if len(rows) <= asked and (not rows or after == rows[-1]["version"]):
                return HistoryPage(tuple(events), None)
        return HistoryPage(tuple(events), cursor_behind(events[-1]))

    def _count_created(self, tasks: Sequence[Task]) -> None:
        for kind, number in Counter(task.kind for task in tasks).items():
            self._catalog.created.labels(kind).inc(number)


async def delete_locked(session: Session, ids: Sequence[UUID]) -> None:
    """Delete tasks whose rows the transaction has locked: the log first, the content last."""
    await session.execute(_SQL["keep_content"], ids)
    await session.execute(_SQL["delete_states"], ids)
    await session.execute(_SQL["delete_tasks"], ids)


def _not_found(task_id: UUID) -> NotFound:
    return NotFound(f"there is no task {task_id}")


async def _insert(runner: Runner, drafts: Sequence[tuple[str, NewTask]]) -> list[Task]:
    shared = (
        _column([owner for owner, _ in drafts]),
        _column([draft.kind for _, draft in drafts]),
        _column([draft.priority for _, draft in drafts]),
        _column([draft.run_at for _, draft in drafts]),
        _column([draft.max_attempts for _, draft in drafts]),
        _column([draft.timeout_seconds for _, draft in drafts]),
    )
    rows = await runner.fetch(
        _SQL["insert"],
        [draft.title for _, draft in drafts],
        [draft.description for _, draft in drafts],
        [draft.payload_json for _, draft in drafts],
        *[each for each, _ in shared],
        *[same for _, same in shared],
    )
    # Ids grow along the batch, whatever order the rows come back in.
    ordered = sorted(rows, key=lambda row: row["task_id"].int)
    return list(starmap(_created, zip(ordered, drafts, strict=True)))


def _column(values: list[T]) -> tuple[Sequence[T], T | None]:
    """Return values each and none for all, or, where they are the same, none each and that one for all.

    Those that are equal must be stored alike: moments are in UTC, as `NewTask` has them.
    """
    if values and values.count(values[0]) == len(values):
        return (), values[0]
    return values, None


def _created(row: Row, given: tuple[str, NewTask]) -> Task:
    """Return a new task from what was sent and what the database added: its content need not travel back."""
    owner, draft = given
    task_id, status, run_at, now = row
    return Task.of(
        (
            task_id, owner, draft.kind, draft.title, draft.description, draft.payload_json, status,
            draft.priority, run_at, 0, draft.max_attempts, float(draft.timeout_seconds),
            # No progress, result or error; its first version.
            None, None, None, None, None, None, None, 1, now, now, None, None, None,
        )
    )  # fmt: skip


async def _first_answer(session: Session, owner: str, key: str, fingerprint: bytes) -> list[Task]:
    row = await session.fetchrow(_SQL["answer"], owner, key)
    if row is None or row["fingerprint"] != fingerprint:
        raise KeyReused("this idempotency key was used for another request")
    return [decode_task(value) for value in json.loads(row["answer"])]


async def _lock(session: Session, owner: str | None, task_id: UUID) -> tuple[Task, datetime]:
    row = await session.fetchrow(_SQL["lock"], task_id)
    if row is None or owner not in (None, row["owner"]):
        raise _not_found(task_id)
    return task_of(row), row[TASK_COLUMNS]


async def _write(session: Session, task: Task, event: EventType) -> Task:
    """Write a decided change of a locked task, and return it with its new version."""
    row = await session.fetchrow(
        _SQL["set_state"],
        task.id,
        task.status.value,
        task.priority,
        task.run_at,
        task.attempt,
        task.max_attempts,
        task.timeout_seconds,
        task.progress,
        task.progress_note,
        task.started_at,
        task.finished_at,
        task.cancel_requested_at,
        event.value,
        task.error is None and task.result_json is None,
    )
    assert row is not None, "the row is locked by this transaction"
    return replace(task, version=row["version"], updated_at=row["updated_at"])


def _page_values(query: ListQuery, after: tuple[datetime, UUID] | None) -> dict[str, Any]:
    cursor_at, cursor_id = after or (None, None)
    return {
        "statuses": [status.value for status in query.statuses],
        "owner": query.owner,
        "kind": query.kind,
        "created_after": query.created_after,
        "created_before": query.created_before,
        "cursor_at": cursor_at,
        "cursor_id": cursor_id,
        # One more than asked for tells whether there is a next page.
        "limit": query.limit + 1,
    }


def _page_flags(query: ListQuery) -> frozenset[str]:
    source = "states" if query.statuses else "tasks"
    given = {
        "owner": query.owner is not None,
        "kind": query.kind is not None,
        "after": query.created_after is not None,
        "before": query.created_before is not None,
        "older": query.cursor is not None and query.newest_first,
        "newer": query.cursor is not None and not query.newest_first,
        "down": query.newest_first,
        "up": not query.newest_first,
    }
    flags = {f"{source}_{name}" for name, wanted in given.items() if wanted}
    return frozenset(flags | {"statuses" if query.statuses else "tasks", "down" if query.newest_first else "up"})
