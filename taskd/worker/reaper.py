"""Takes back what dead processes held."""

from __future__ import annotations

import logging
from collections.abc import Callable

from taskd.clock import Clock, monotonic
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.ports import Leases

logger = logging.getLogger("taskd.worker")

EVERY = 5.0
"""Seconds between looks while all renew their leases in time: for what one left behind that ended its own."""

CLOSELY = 1.0
"""Seconds between looks while one does not; with a lease of 6 s a dead process's tasks run again within 8."""

BATCH = 500
"""Tasks taken back in one transaction."""

SHARE, LONGEST = 10, 10.0
"""A look that takes long is followed by so many times as long a pause, up to so many seconds: under a snapshot that is
held open, a look passes all that ran since."""


class Reaper:
    """Looks for dead leases now and then. Every worker has one; they step over each other's rows.

    Args:
        leases: the store's.
        supervisor: owns the loop.
        on_rescued: called when tasks were taken back, and are due.
        clock: monotonic seconds.
    """

    def __init__(
        self, leases: Leases, supervisor: Supervisor, on_rescued: Callable[[], None], *, clock: Clock = monotonic
    ) -> None:
        self.rescued = 0
        """Tasks taken back so far."""
        self._leases = leases
        self._on_rescued = on_rescued
        self._clock = clock
        self._suspects = False
        self._service = Periodic("reaper", self.run_once, supervisor, Backoff(0.1, 2.0))

    def start(self) -> None:
        """Begin to look."""
        self._service.start()

    async def stop(self) -> None:
        """Look no more. Safe twice, and before `start`."""
        await self._service.stop()

    def suspect(self, overdue: bool) -> None:
        """Say whether some process has not renewed its lease in time."""
        if overdue and not self._suspects:
            self._service.wake()
        self._suspects = overdue

    async def run_once(self) -> float:
        """Take back one batch; return the seconds until the next."""
        began = self._clock()
        number = await self._leases.rescue(BATCH)
        took = self._clock() - began
        if number:
            self.rescued += number
            logger.warning("took back %d tasks of processes that are gone", number)
            self._on_rescued()
        if number >= BATCH:
            return 0.0
        return max(CLOSELY if self._suspects else EVERY, min(SHARE * took, LONGEST))
