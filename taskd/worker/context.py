"""What a handler is given beside its task."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from taskd.domain.model import Task
from taskd.domain.outcome import Report
from taskd.worker.job import Job
from taskd.worker.result import clean_text

MAX_NOTE = 500
"""Characters of a progress note that are kept."""


class Reports(Protocol):
    """Where progress goes."""

    async def send(self, report: Report) -> None:
        """Store a report, in place of what was put for this attempt; an outage drops it."""

    def put(self, report: Report) -> None:
        """Store a report soon, unless a later one of the same attempt comes first."""


class Context:
    """One attempt as its handler sees it. Made by the worker."""

    def __init__(self, job: Job, reports: Reports) -> None:
        self.task: Task = job.task
        """The task, as it was when it was claimed."""
        self._lease = job.lease
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        # What only some handlers need is made when they do: an attempt that does nothing else should cost little.
        self._stop_event: threading.Event | None = None
        self._sending: asyncio.Lock | None = None
        self._newest: Report | None = None
        self._guard = threading.Lock()
        self._handed: Report | None = None

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.task.attempt

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is to stop, for whatever reason. A function in a thread looks now and then."""
        return self._cancelled

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait in a thread for up to `seconds`, less when the attempt is to stop; return whether it is.

        What a plain function calls in place of `time.sleep`. Never call it from a coroutine.
        """
        with self._guard:
            if self._stop_event is None:
                self._stop_event = threading.Event()
        # `stop` sets the flag before it looks for the event, so one of the two sees the other.
        return self._cancelled or self._stop_event.wait(seconds)

    async def progress(self, fraction: float, note: str | None = None) -> None:
        """Say how far the work is, and return when that is stored.

        While one report of this attempt is being stored, only the newest of those that come is kept. In an outage of
        the database the report is dropped. A plain function calls `report` instead.

        Args:
            fraction: 0 to 1.
            note: a few words; cut to 500 characters.

        Raises:
            ValueError: `fraction` is not a number from 0 to 1.
        """
        report = self._newest = self._report(fraction, note)
        if self._sending is None:
            self._sending = asyncio.Lock()
        async with self._sending:
            if self._newest is report:
                await self._reports.send(report)

    def report(self, fraction: float, note: str | None = None) -> None:
        """Say how far the work is, without waiting; from a thread or from the event loop. See `progress`."""
        report = self._report(fraction, note)
        with self._guard:
            # A function that reports in a tight loop must not fill the event loop with calls.
            scheduled = self._handed is not None
            self._handed = report
        if scheduled:
            return
        try:
            self._loop.call_soon_threadsafe(self._hand_over)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def stop(self) -> None:
        """Make `cancelled` true. Called by the worker."""
        self._cancelled = True
        with self._guard:
            if self._stop_event is not None:
                self._stop_event.set()

    def _hand_over(self) -> None:
        with self._guard:
            report, self._handed = self._handed, None
        if report is not None:
            self._reports.put(report)

    def _report(self, fraction: float, note: str | None) -> Report:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise ValueError(f"progress must be a number from 0 to 1, not {fraction!r}")
        text = None if note is None else clean_text(str(note), MAX_NOTE)
        return Report(self.task.id, self.task.attempt, self._lease, float(fraction), text)
