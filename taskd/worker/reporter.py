"""Progress on its way to the store: the newest of each attempt, never more than that."""

from __future__ import annotations

import asyncio
from uuid import UUID

from taskd.domain.outcome import Report
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.ports import Queue


class Reporter:
    """Stores progress for all attempts of a pool; implements `context.Reports`.

    Holds one report for each running attempt at the most; all that wait are given to the store together, which
    stores them in one statement.
    """

    def __init__(self, queue: Queue, supervisor: Supervisor) -> None:
        self._queue = queue
        self._pending: dict[tuple[UUID, int], Report] = {}
        self._service = Periodic("progress", self.run_once, supervisor, Backoff(0.1, 2.0))

    def start(self) -> None:
        """Begin to store what is put."""
        self._service.start()

    async def stop(self) -> None:
        """Store no more. Safe twice, and before `start`."""
        await self._service.stop()

    async def send(self, report: Report) -> None:
        """Store a report and return. An outage drops it: the next one tells more."""
        self._pending.pop((report.task_id, report.attempt), None)
        try:
            await self._queue.report(report)
        except Unavailable:
            return

    def put(self, report: Report) -> None:
        """Store a report soon, unless a later one of the same attempt comes first."""
        self._pending[report.task_id, report.attempt] = report
        self._service.wake()

    def forget(self, key: tuple[UUID, int]) -> None:
        """Drop what waits of an attempt that has ended."""
        self._pending.pop(key, None)

    async def run_once(self) -> None:
        """Store all that waits."""
        batch, self._pending = self._pending, {}
        if not batch:
            return
        answers = await asyncio.gather(*map(self._queue.report, batch.values()), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for (key, report), answer in zip(batch.items(), answers, strict=True):
            if isinstance(answer, Unavailable):
                self._pending.setdefault(key, report)
        if errors:
            self._service.wake()
            raise next((error for error in errors if not isinstance(error, Unavailable)), errors[0])
