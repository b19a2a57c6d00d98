"""Deletes what is old: finished tasks in small batches, the event log by whole partitions; and sums the log up."""

from __future__ import annotations

import logging

from taskd.clock import Clock, monotonic
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.ports import Sweep

logger = logging.getLogger("taskd.worker")

EVERY = 60.0
"""Seconds between looks for old tasks, and between sums: a process that starts reads the log back to the last one."""

BATCH = 1000
"""Tasks deleted in one transaction."""

BETWEEN = 0.1
"""Seconds between two full batches: what others do comes first."""

ROTATE_EVERY = 600.0
"""Seconds between looks at the event log's partitions."""


class Cleaner:
    """Cleans now and then. Several processes may do so at once."""

    def __init__(self, sweep: Sweep, supervisor: Supervisor, *, clock: Clock = monotonic) -> None:
        self._sweep = sweep
        self._clock = clock
        self._folded_at: float | None = None
        self._rotated_at: float | None = None
        self._service = Periodic("cleaner", self.run_once, supervisor, Backoff(1.0, 30.0))

    def start(self) -> None:
        """Begin to clean."""
        self._service.start()

    async def stop(self) -> None:
        """Clean no more. Safe twice, and before `start`."""
        await self._service.stop()

    async def run_once(self) -> float:
        """Sum up and rotate the log if it is time, delete one batch; return the seconds until the next call."""
        now = self._clock()
        if self._folded_at is None or now - self._folded_at >= EVERY:
            await self._sweep.fold_totals()
            self._folded_at = now
        if self._rotated_at is None or now - self._rotated_at >= ROTATE_EVERY:
            await self._sweep.rotate_events()
            self._rotated_at = now
        number = await self._sweep.delete_finished(BATCH)
        if number:
            logger.info("deleted %d finished tasks that were old enough", number)
        return BETWEEN if number >= BATCH else EVERY
