"""The queue under load: tasks that are done at once, from the first made to the last stored as done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from taskd.cli.load.listener import Listener, task_of
from taskd.cli.load.rows import Row
from taskd.cli.load.target import Refused, Target
from taskd.cli.load.tasks import Progress, Tasks

ENDS = ("done", "failed", "cancelled")

MOVES_WITHIN = 60.0
"""Seconds in which at least one more task must end, or the rest is not waited for."""


class Ended:
    """Counts the ends of one benchmark's tasks.

    Args:
        mark: in their payloads.
        tell: is told how far it is.
    """

    def __init__(self, mark: str, tell: Progress) -> None:
        self._mark = mark.encode()
        self._tell = tell
        self._wanted = 1
        self.number = 0
        self.failed = 0
        self.first: datetime | None = None
        """When the first was made, by the server's clock."""
        self.last: datetime | None = None
        """When the last was stored as ended."""
        self.all = asyncio.Event()

    def begin(self, wanted: int) -> None:
        """Count anew, to so many."""
        self._wanted, self.number, self.failed = wanted, 0, 0
        self.first = self.last = None
        self.all.clear()

    def on_event(self, message: bytes, _: float) -> None:
        """Take note of an end."""
        if self._mark not in message:
            return
        task = task_of(message)
        made, ended = datetime.fromisoformat(task["created_at"]), datetime.fromisoformat(task["finished_at"])
        self.first = made if self.first is None else min(made, self.first)
        self.last = ended if self.last is None else max(ended, self.last)
        self.failed += task["status"] != "done"
        self.number += 1
        if self.number % 100 == 0:
            self._tell(f"{self.number} of {self._wanted} tasks done")
        if self.number >= self._wanted:
            self.all.set()

    def on_made(self, making: asyncio.Future[list[str]]) -> None:
        """Wait for no more when they could not be made."""
        if not making.cancelled() and making.exception() is not None:
            self.all.set()

    @property
    def seconds(self) -> float:
        """From the first made to the last ended."""
        assert self.first is not None
        assert self.last is not None
        return (self.last - self.first).total_seconds()


async def queue(target: Target, tasks: Tasks, number: int, kind: str, patience: float, tell: Progress) -> list[Row]:
    """Have so many tasks of a kind done, and say how many a second.

    Args:
        patience: seconds for a worker to take the first.
    """
    row = Row(f"tasks of kind {kind}, made to done", "tasks/s", number=number)
    ended = Ended(tasks.mark, tell)
    limited = target.limited
    try:
        async with listening(Listener(target, "bench-queue", ended.on_event), kind) as listener:
            tell(f"waiting for a worker to take a task of kind {kind}")
            await tasks.make(1, kind)
            nobody = f"no worker took a task of kind {kind} in {patience:g} s: is there one with a handler for it?"
            await listener.while_open(ended.all.wait(), patience, nobody)
            ended.begin(number)
            making = asyncio.ensure_future(tasks.make(number, kind))
            making.add_done_callback(ended.on_made)
            try:
                await _all(listener, ended)
            finally:
                making.cancel()
                await asyncio.wait({making})
            if ended.number < number:
                making.result()
        if ended.failed:
            raise Refused(f"{ended.failed} of {number} tasks failed")
        row.value = number / max(ended.seconds, 1e-6)
    except Refused as error:
        row.fault = str(error)
    row.limited = target.limited - limited
    return [row]


async def _all(listener: Listener, ended: Ended) -> None:
    while not ended.all.is_set():
        before = ended.number
        try:
            await listener.while_open(ended.all.wait(), MOVES_WITHIN, "")
        except Refused:
            if listener.why_closed is not None or ended.number == before:
                raise Refused(listener.why_closed or f"the tasks stand still at {ended.number}") from None


@asynccontextmanager
async def listening(listener: Listener, kind: str) -> AsyncIterator[Listener]:
    """Have a socket that hears of the ends of tasks of a kind."""
    try:
        await listener.open(kind, ENDS)
        yield listener
    finally:
        listener.close()
