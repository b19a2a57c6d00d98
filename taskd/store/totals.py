"""How many tasks there are in each status, at a place of the event log; and how long the oldest ready one has waited.

Each event tells what its task was before (`was`), so the number of tasks in a status at a key is

    that number at any earlier key + the events between that lead to the status - those that lead away from it

`task_totals` holds the numbers at one key, the mark. A fold moves it now and then over what has been added; what lies
behind it is added at each question. Nothing is counted, and a change of a task writes nothing for it but its event.

Considered and refused: see docs/decisions/0004-counts.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from taskd.domain.event import EventKey
from taskd.domain.model import Status
from taskd.store.pool import Database
from taskd.store.statements import load

_SQL = load("totals")


class Totals(NamedTuple):
    """The number of tasks in each status, with all events up to `key` and none behind it."""

    key: EventKey
    counts: Mapping[Status, int]


class TotalsStore:
    """The numbers of one database. Every method raises `Unavailable` when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def at(self, key: EventKey) -> Totals:
        """Return the numbers at `key`, or at the mark when that is beyond it.

        Args:
            key: where a reader of the log stands, or `Place.end`; behind that, events may yet appear.
        """
        row = await self._database.fetchrow(_SQL["at"], str(key.xid), key.seq)
        assert row is not None, "a migrated database has one row in task_totals"
        return Totals(max(key, EventKey(row["xid"], row["seq"])), {status: row[status.value] for status in Status})

    async def present(self) -> Mapping[Status, int]:
        """Return the numbers with all that is committed now, also what no reader of the log may have yet.

        It costs what `at` does, and more for each event that an open transaction holds back.
        """
        row = await self._database.fetchrow(_SQL["present"])
        assert row is not None, "a migrated database has one row in task_totals"
        return {status: row[status.value] for status in Status}

    async def oldest_ready(self) -> float | None:
        """Return the seconds for which the oldest ready task has been ready, or None when no task is."""
        seconds: float | None = await self._database.fetchval(_SQL["oldest_ready"])
        return seconds
