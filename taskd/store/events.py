"""The event log, read in an order that all readers share and that never skips a slow transaction.

An event's key is `(xid, seq)`. `xid` is the id of the transaction that wrote it, or that of the task's event before
if that is greater; `seq` is drawn from a sequence once the task's row is locked. So a task's keys grow with its
versions, whichever transactions write them.

A reader takes only events with `xid` below the oldest transaction that is still open (`xmin` of its snapshot). Any
event that is committed later belongs to a transaction that was open then, or begun after, so its `xid` is at or above
that mark: nothing can appear behind a place that a reader has passed. The price is that one long transaction that
writes, of whatever program in this database cluster, holds back the news (not the work) until it ends.

Considered and refused: a plain sequence (numbers are drawn in one order and committed in another, so readers miss
some), a lock around each write (orders everything, and serializes all writers), logical decoding (an extension's
worth of permissions and a slot that fills the disk when nobody reads).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from taskd.domain.event import Event, EventKey
from taskd.domain.model import Status
from taskd.store.pool import Database
from taskd.store.rows import bare_event_of, event_of
from taskd.store.statements import load

_SQL = load("events")


class Sums(NamedTuple):
    """What the events of a batch come to that are not told one by one.

    `number` is how many there are, and `end` the key of the last event of the batch, told or not. `steps` is what they
    add to the number of tasks in each status; `ended` attempts were ended by them, which took `took` seconds together.
    """

    number: int
    end: EventKey
    steps: Mapping[Status, int]
    ended: int
    took: float


class Batch(NamedTuple):
    """Events in order, and the database's time at which they were read.

    `pending` says that others are committed and wait for an older transaction to end. Transactions below `low` had
    ended by then, those from `high` on had not begun. `sums` are of events that are not among `events`.
    """

    events: tuple[Event, ...]
    pending: bool
    now: datetime
    low: int
    high: int
    sums: Sums | None = None

    @property
    def number(self) -> int:
        """How many events were read."""
        return len(self.events) + (self.sums.number if self.sums else 0)

    @property
    def end(self) -> EventKey:
        """The key of the last one; there must be one."""
        return self.sums.end if self.sums else self.events[-1].key


class Place(NamedTuple):
    """Which log this is (`epoch`, 8 bytes), the greatest key that was dropped from it, and its present end."""

    epoch: bytes
    floor: EventKey
    end: EventKey


class EventLog:
    """Reads the log of one database. Every method raises `Unavailable` when it is away.

    Args:
        content: False: events without what their tasks are about, for who only counts and wakes.
    """

    def __init__(self, database: Database, *, content: bool = True) -> None:
        self._database = database
        self._content = content

    async def read(self, after: EventKey, limit: int) -> Batch:
        """Return up to `limit` events behind `after`; fewer mean that no more can be read yet."""
        if not self._content:
            return await self._read_bare(after, limit, summed=False)
        head, *rows = await self._database.fetch(_SQL["read"], str(after.xid), after.seq, limit)
        events = tuple(map(event_of, rows))
        return Batch(events, head["pending"], head["now"], head["low"], head["high"])

    async def read_summed(self, after: EventKey, limit: int) -> Batch:
        """As `read`, without content; those that wake and stop nobody come as their sums."""
        return await self._read_bare(after, limit, summed=True)

    async def _read_bare(self, after: EventKey, limit: int, *, summed: bool) -> Batch:
        head, *rows = await self._database.fetch(_SQL["read_bare"], str(after.xid), after.seq, limit, summed)
        events = tuple(map(bare_event_of, rows))
        sums = None
        if head["number"] > len(events):
            steps = dict(zip(map(Status, head["statuses"] or ()), head["steps"] or (), strict=True))
            end = EventKey(head["xid_last"], head["seq_last"])
            sums = Sums(head["number"] - len(events), end, steps, head["ended"], head["took"])
        return Batch(events, head["pending"], head["now"], head["low"], head["high"], sums)

    async def place(self) -> Place:
        """Return where the log begins and ends now."""
        row = await self._database.fetchrow(_SQL["place"])
        assert row is not None, "a migrated database has one row in meta"
        return Place(row["epoch"], EventKey(row["floor_xid"], row["floor_seq"]), EventKey(row["xmin"], 0))
