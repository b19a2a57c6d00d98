"""The numbers of tasks as the whole log tells them: what the store keeps is held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from taskd.domain.event import EventKey
from taskd.domain.model import Status
from taskd.store.pool import Database

ALL = "SELECT xid, seq, type, task_id, status FROM events ORDER BY xid, seq"
COUNT = "SELECT status, count(*) AS number FROM task_states GROUP BY status"


class Replay:
    """The log of a database from which nothing was dropped, read once."""

    def __init__(self, events: list[tuple[EventKey, UUID, Status | None]]) -> None:
        self._events = events

    @classmethod
    async def of(cls, database: Database) -> Replay:
        rows = await database.fetch(ALL)
        return cls(
            [
                (
                    EventKey(row["xid"], row["seq"]),
                    row["task_id"],
                    None if row["type"] == "deleted" else Status(row["status"]),
                )
                for row in rows
            ]
        )

    @property
    def keys(self) -> list[EventKey]:
        return [key for key, _, _ in self._events]

    def at(self, key: EventKey) -> dict[Status, int]:
        """Return the numbers at a place: where its last event up to there left each task."""
        statuses = {task_id: status for event_key, task_id, status in self._events if event_key <= key}
        return filled(Counter(status for status in statuses.values() if status is not None))


def filled(counts: Mapping[Status, int]) -> dict[Status, int]:
    """Return the numbers with the zeros."""
    return {status: counts.get(status, 0) for status in Status}


async def counted(database: Database) -> dict[Status, int]:
    """Return the numbers by counting all tasks."""
    return filled({Status(row["status"]): row["number"] for row in await database.fetch(COUNT)})
