"""What the worker needs of a store, as narrow as its need. All methods raise `Unavailable` in an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from taskd.domain.lease import Renewal
from taskd.domain.model import Status, Task
from taskd.domain.outcome import Outcome, Report

__all__ = ["Leases", "Queue", "Renewal", "Sweep"]


class Queue(Protocol):
    """Ready tasks, and how their attempts end."""

    async def claim(self, lease: UUID, kinds: Sequence[str], limit: int) -> list[Task]:
        """Return up to `limit` ready tasks, now running under `lease`, this attempt counted already.

        Highest priority first, then oldest. A lease that is not registered gets none.
        """

    def finish(self, outcome: Outcome) -> asyncio.Future[Status | None]:
        """Store how an attempt ended; the answer: what the task is now, or None.

        None: refused, the attempt no longer belongs to that lease. Raises `Unavailable` at once, or as the answer.
        """

    async def report(self, report: Report) -> bool:
        """Store a progress; False: refused, as for `finish`."""

    async def promote(self) -> float | None:
        """Make due tasks ready; return the seconds until the next is due (0: more are due), None when none waits."""

    async def waiting_kinds(self) -> list[str]:
        """Return the kinds that have ready tasks."""


class Leases(Protocol):
    """Which processes live."""

    async def register(self, lease: UUID, role: str, name: str) -> None:
        """Register a lease; again with the same one is as new. `role` and `name` are for who looks."""

    async def renew(self, lease: UUID) -> Renewal:
        """Renew a lease."""

    async def end(self, lease: UUID) -> None:
        """Remove a lease; what it still holds is rescued."""

    async def rescue(self, limit: int) -> int:
        """Take back up to `limit` tasks that dead leases hold; return how many. `limit`: there may be more."""


class Sweep(Protocol):
    """What is old and goes."""

    async def delete_finished(self, limit: int) -> int:
        """Delete up to `limit` tasks that ended longer ago than they are kept; return how many."""

    async def fold_totals(self) -> int:
        """Bring the stored numbers of tasks up to the present end of the log; return over how many events."""

    async def rotate_events(self) -> None:
        """Create the event log's coming partitions, drop the old ones."""
