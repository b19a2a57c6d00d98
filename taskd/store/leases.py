"""Leases: which processes live, and what the dead ones held."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from taskd.domain.lease import Renewal
from taskd.domain.model import FINAL, Status
from taskd.metrics.catalog import Catalog
from taskd.store.pool import Database, nobody_asked
from taskd.store.statements import load

_SQL = load("leases")

EXPIRES = 6.0
"""Seconds from a renewal until the lease is dead, by the database's clock."""

MISSED = 4.0
"""Seconds without renewal after which a lease is dead when its lock is free: the lock is lost with each connection,
so it alone proves nothing."""

OVERDUE = 2.5
"""Seconds without renewal after which a process is looked at more closely; it renews every 2."""

GRACE = 6.0
"""Seconds after the server's start in which no lease is called dead."""


def lock_key(lease: UUID) -> int:
    """Return the advisory lock that stands for a lease: its first 64 bits, signed."""
    return int.from_bytes(lease.bytes[:8], signed=True)


class LeaseStore:
    """Implements the worker's `Leases`.

    Args:
        committed: called after each commit that left an event.
        catalog: where rescued tasks, and those that a rescue ended, are counted.
        grace: seconds after the server's start in which no lease is called dead.
    """

    def __init__(
        self,
        database: Database,
        committed: Callable[[], None] = nobody_asked,
        catalog: Catalog | None = None,
        *,
        grace: float = GRACE,
    ) -> None:
        self._database = database
        self._committed = committed
        self._catalog = catalog or Catalog()
        self._grace = grace

    async def register(self, lease: UUID, role: str, name: str) -> None:
        """Register a process start; `role` and `name` are for who looks into the table."""
        await self._database.execute(_SQL["register"], lease, role, name, lock_key(lease), EXPIRES)

    async def renew(self, lease: UUID) -> Renewal:
        """Renew a lease for `EXPIRES` seconds."""
        row = await self._database.fetchrow(_SQL["renew"], lease, EXPIRES, OVERDUE)
        if row is None:
            return Renewal(False, 0, ())
        cancelled = zip(row["task_ids"], row["attempts"], strict=True)
        return Renewal(True, row["others"], tuple(cancelled), row["overdue"])

    async def end(self, lease: UUID) -> None:
        """Remove a lease; what it still holds is rescued."""
        await self._database.execute(_SQL["end"], lease)

    async def rescue(self, limit: int) -> int:
        """Take back up to `limit` tasks that dead leases hold.

        Returns:
            The number of tasks; `limit` means that there may be more.
        """
        # Nearly always there is nothing, and one statement says so.
        if not await self._database.fetchval(_SQL["left"], self._grace, MISSED):
            return 0
        async with self._database.transaction() as session:
            dead = [row["lease"] for row in await session.fetch(_SQL["dead"], self._grace, MISSED)]
            rescued = await session.fetch(_SQL["rescue"], dead, limit)
            if dead:
                await session.execute(_SQL["forget"], dead)
        if rescued:
            self._committed()
            self._catalog.rescued.labels().inc(len(rescued))
        for row in rescued:
            if Status(row["status"]) in FINAL:
                self._catalog.finished.labels(row["kind"], row["status"]).inc()
        return len(rescued)
