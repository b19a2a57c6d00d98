"""The tasks that a benchmark makes: marked, so that they are found again, and removed whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from taskd.cli.load.target import Answer, Caller, Refused, Target, path_of
from taskd.errors import Unavailable

KIND = "taskd.bench"
"""Of tasks that no worker is to take; they are due in a day besides, when they will be gone."""

BATCH = 500
"""Tasks that are made by one request."""

DELETERS = 32
"""Connections by which tasks are removed."""

RUNNING_TRIES, RUNNING_PAUSE = 20, 0.25
"""How often a task that runs is asked for again, since one that runs can't be deleted; and the seconds between."""

FIRST_WITHIN = 5.0
"""Seconds for the answer to the first request, once nobody wants the rest any more."""

Progress = Callable[[str], None]


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first error ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Tasks:
    """The tasks of one benchmark.

    Args:
        target: the server.
        progress: is told how far it is.
    """

    def __init__(self, target: Target, progress: Progress) -> None:
        self._target = target
        self._progress = progress
        self._mark = f"bench-{secrets.token_hex(6)}"
        self._since: str | None = None
        """When the first was made, by the server's clock; None: there is none."""
        self._kinds = {KIND}

    @property
    def mark(self) -> str:
        """Stands in the payload of each."""
        return self._mark

    def mark_of(self, row: str) -> bytes:
        """Stands in the events of the tasks of one row, and in no others: those of a row before may still come."""
        return f"{self._mark}.{row}.".encode()

    def body(self, kind: str = KIND, row: str = "") -> dict[str, Any]:
        """Return what a task is made of. Of `KIND`, it waits; of another, it is for a worker."""
        self._kinds.add(kind)
        payload = {"bench": self._mark, "row": self.mark_of(row).decode(), "size": 12}
        made: dict[str, Any] = {"title": "taskd bench", "kind": kind, "payload": payload}
        if kind == KIND:
            # By this clock: half a day is more than two clocks are apart.
            made["run_at"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        else:
            made["max_attempts"] = 1
        return made

    async def begin(self) -> None:
        """Make the first one.

        Raises:
            Refused: this caller may not.
            Unavailable: no taskd is there.
        """
        first = asyncio.ensure_future(self._first())
        try:
            await asyncio.shield(first)
        finally:
            if not first.done():
                # Interrupted: it may be made already, and then has to be known of.
                await asyncio.wait({first}, timeout=FIRST_WITHIN)
                first.cancel()

    async def _first(self) -> None:
        async with Caller(self._target) as caller:
            answer = await caller.call("POST", "/tasks", self.body())
        if answer.status in (401, 403):
            raise Refused(f"the server refuses this caller: {answer.detail}")
        task = created(answer)
        try:
            self._since = str(task["created_at"])
        except (KeyError, TypeError):
            raise Unavailable("what answers there is no taskd") from None

    async def make(self, number: int, kind: str = KIND, row: str = "") -> list[str]:
        """Make so many, and return their ids."""
        ids: list[str] = []
        async with Caller(self._target) as caller:
            while len(ids) < number:
                body = {"tasks": [self.body(kind, row)] * min(BATCH, number - len(ids))}
                answer = await caller.call("POST", "/tasks/batch", body)
                ids += [task["id"] for task in created(answer)["tasks"]]
                self._progress(f"made {len(ids)} of {number} tasks")
        return ids

    async def remove(self) -> int:
        """Delete all that were made; return how many could not be."""
        if self._since is None:
            return 0
        found = [task_id async for task_id in self._left()]
        rest, left = iter(found), 0
        done = 0

        async def delete() -> None:
            nonlocal left, done
            async with Caller(self._target) as caller:
                for task_id in rest:
                    left += not await _delete(caller, task_id)
                    done += 1
                    self._progress(f"deleted {done} of {len(found)} tasks")

        await together(delete() for _ in range(min(DELETERS, len(found))))
        return left

    async def _left(self) -> AsyncIterator[str]:
        """Yield the ids of those that are there: as the server says, for an answer may have been lost."""
        assert self._since is not None
        async with Caller(self._target) as caller:
            for kind in sorted(self._kinds):
                cursor: str | None = None
                while True:
                    query = {"kind": kind, "limit": "200", "created_after": _before(self._since)}
                    query |= {} if cursor is None else {"cursor": cursor}
                    answer = await caller.call("GET", f"/tasks?{urlencode(query)}")
                    if answer.status != 200:
                        raise Refused(f"the list of tasks was answered with {answer.status}: {answer.detail}")
                    page = answer.json()
                    for task in page["tasks"]:
                        if task["payload"].get("bench") == self._mark:
                            yield task["id"]
                    cursor = page["next_cursor"]
                    if cursor is None:
                        break


def created(answer: Answer) -> Any:
    """Return what a request to make tasks was answered with.

    Raises:
        Refused: they were not made.
    """
    if answer.status != 201:
        raise Refused(f"a task could not be made: {answer.status}, {answer.detail}")
    return answer.json()


def _before(moment: str) -> str:
    """Return a moment just before one, since a list begins after what it is given."""
    return (datetime.fromisoformat(moment) - timedelta(milliseconds=1)).isoformat()


async def _delete(caller: Caller, task_id: str) -> bool:
    """Delete a task, which may be running; return whether it is gone."""
    for _ in range(RUNNING_TRIES):
        answer = await caller.call("DELETE", path_of(task_id))
        if answer.status in (204, 404):
            return True
        if answer.status != 409:
            return False
        await caller.call("POST", f"{path_of(task_id)}/cancel")
        await asyncio.sleep(RUNNING_PAUSE)
    return False
