"""What goes by itself: old tasks, old idempotency keys, old events."""

from __future__ import annotations

import math
from collections.abc import Callable

from taskd.store.pool import Database, nobody_asked
from taskd.store.statements import load
from taskd.store.tasks import delete_locked

_SQL = load("sweep")
_FOLD = load("totals")["fold"]

DAY = 86_400.0

FOLDED_AT_ONCE = 100_000
"""Events of one fold: a long list, after days without any, must not take longer than a statement may."""

PARTITIONS_KEPT = 4
"""Into how many partitions the time of the event log is cut: each read looks into all, each drop frees one."""


class SweepStore:
    """Implements the worker's `Sweep`.

    Args:
        committed: called after each commit that left an event.
        retention_days: how long final tasks are kept.
        event_retention_hours: how long events are kept at least; up to a quarter longer, until their partition goes.
    """

    def __init__(
        self,
        database: Database,
        committed: Callable[[], None] = nobody_asked,
        *,
        retention_days: float,
        event_retention_hours: float,
    ) -> None:
        self._database = database
        self._committed = committed
        self._retention = retention_days * DAY
        self._event_hours = event_retention_hours

    async def delete_finished(self, limit: int) -> int:
        """Delete up to `limit` final tasks older than the retention, and all expired idempotency keys.

        Returns:
            The number of tasks deleted; `limit` means that there may be more.
        """
        await self._database.execute(_SQL["forget_keys"])
        async with self._database.transaction() as session:
            rows = await session.fetch(_SQL["expired"], self._retention, limit)
            if rows:
                await delete_locked(session, [row["task_id"] for row in rows])
        if rows:
            self._committed()
        return len(rows)

    async def fold_totals(self) -> int:
        """Add what is new in the log to the stored numbers of tasks; return how many events were added.

        Until then each `TotalsStore.at` reads these events, and `rotate_events` keeps them.
        """
        folded = 0
        while number := await self._database.fetchval(_FOLD, FOLDED_AT_ONCE):
            folded += number
            if number < FOLDED_AT_ONCE:
                break
        return folded

    async def rotate_events(self) -> None:
        """Make the partitions that will be needed soon, and drop those whose events are all too old."""
        await self.fold_totals()
        width = math.ceil(self._event_hours / PARTITIONS_KEPT)
        await self._database.execute(_SQL["rotate"], width, width + 1, self._event_hours)
