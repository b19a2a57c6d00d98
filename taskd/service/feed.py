"""The event log as this process reads it: one reader of the database, any number of readers of it.

The feed asks the log for what is new whenever something says that there may be something: a write of this process,
a notification of another one, or a few seconds gone by. What it gets it hands to its listeners, in order, and keeps
the youngest part of it in a ring, so that a client that was away for a moment is served without the database.

A listener is called in the event loop and must not block. Everything that follows the log is one: the sockets, the
streams, the dispatcher's wake-up and the pool's cancellations.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from taskd.clock import Clock, monotonic
from taskd.domain.cursor import LogCursor, decode_log_cursor, encode_log_cursor
from taskd.domain.event import LOG_START, Event, EventKey
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Listener, Resume

if TYPE_CHECKING:
    # A process that follows another's log uses the ring, and has no database.
    from taskd.store.events import Batch, EventLog, Sums

logger = logging.getLogger("taskd.feed")

BATCH = 500
"""Events of one read of the log."""

SUMMED = 1200
"""Events of one read of which most come as sums: what a claim of 500 tasks and their ends leave, and some more."""

POLL = 5.0
"""Seconds after which the log is read though nothing asked for it: a lost notification costs no more than this."""

PENDING_FIRST, PENDING_CAP = 0.002, 0.1
"""Seconds between looks while committed events wait for an older transaction to end."""

RING_EVENTS, RING_BYTES = 2_000, 4 * 1024 * 1024

APART = 0.25
"""Seconds between two looks of `Delay` at the least: so exact is the delay."""

HANGS = 1.0
"""Seconds after which a read that has not been answered counts as delay."""

READERS = 2
"""Reads of the past that run at once. A thousand clients that come back together must not take the whole pool."""

_key = attrgetter("key")


class Ring:
    """The youngest events of the log, without a gap, bounded by number and by the bytes that they take."""

    def __init__(self, start: EventKey, events: int = RING_EVENTS, size: int = RING_BYTES) -> None:
        self.start = start
        """The key behind which the ring is complete."""
        self._events: deque[Event] = deque()
        self._sizes: deque[int] = deque()
        self._limit = events
        self._size_limit = size
        self._size = 0

    def extend(self, events: Sequence[Event]) -> None:
        """Append the log's next events."""
        if not self._limit:
            # Nothing would be left of them.
            self.start = events[-1].key if events else self.start
            return
        for event in events:
            size = event.size
            self._events.append(event)
            self._sizes.append(size)
            self._size += size
        while self._events and (len(self._events) > self._limit or self._size > self._size_limit):
            self._size -= self._sizes.popleft()
            self.start = self._events.popleft().key

    def read(self, after: EventKey, limit: int) -> list[Event] | None:
        """Return up to `limit` events behind `after`, or None when the ring does not reach back so far."""
        if after < self.start:
            return None
        first = bisect_right(self._events, after, key=_key)
        return [self._events[n] for n in range(first, min(first + limit, len(self._events)))]


class Delay:
    """For how long something that is committed has not been handed on; decided on what each read saw.

    Everything that was committed at the moment of one look has been read when every transaction that had begun by then
    has ended. So looks are kept, the oldest first, until that is so; what is left unread was committed after the last
    one that was dropped. They are thinned as the delay grows, to about a hundredth of it, which bounds their number.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int | None]] = deque()

    def seconds(self, now: float) -> float:
        """Return the seconds, 0 when nothing is held back."""
        return now - self._looks[0][0] if self._looks else 0.0

    def failed(self, now: float) -> None:
        """Say that the log could not be read."""
        if not self._looks:
            self._looks.append((now, None))

    def read(self, now: float, batch: Batch, complete: bool) -> None:
        """Say what a read saw that was asked for at `now`; not `complete`: there is more, that was not asked for."""
        looks = self._looks
        if complete and not batch.pending:
            looks.clear()
            return
        reached = batch.low if complete else batch.end.xid
        if looks and looks[0][1] is None:
            looks[0] = (looks[0][0], batch.high)
        if not looks or now - looks[-1][0] >= max(APART, (now - looks[0][0]) / 100):
            looks.append((now, batch.high))
        while len(looks) > 1 and looks[0][1] is not None and reached >= looks[0][1]:
            looks.popleft()


class Summer(Protocol):
    """Who counts, and can be given sums in place of single events."""

    @property
    def takes_sums(self) -> bool:
        """Whether it can be now; asked before each read, and must hold until that is answered."""

    def add(self, sums: Sums) -> None:
        """Count what the sums say; called when the batch's single events have been handed on."""


class BaseFeed:
    """What those who follow a log have in common, wherever it is: its place, its clock, and who is told.

    Args:
        clock: monotonic seconds.
        ring: events that are kept in memory at the most; 0 where nobody asks for any.
    """

    def __init__(self, clock: Clock, ring: int = RING_EVENTS) -> None:
        self._clock = clock
        self._most = ring
        self._ahead: float | None = None
        self._epoch = b""
        self._position = LOG_START
        self._ring = Ring(LOG_START, ring)
        self._listeners: list[Listener] = []
        self._on_reset: list[Callable[[], None]] = []
        self._readers = asyncio.Semaphore(READERS)

    @property
    def position(self) -> EventKey:
        """The key of the last event that was handed to listeners."""
        return self._position

    @property
    def epoch(self) -> bytes:
        """Which log it is: eight bytes, another for another database; empty while nothing is known of it."""
        return self._epoch

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each batch of new events; the answer ends that. Safe twice."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the log turned out to be another one, and all who follow it must begin anew."""
        self._on_reset.append(callback)

    def age(self, at: datetime) -> float:
        """Return the seconds since a moment of the database's clock, 0 at least.

        Both clocks only measure: what the database's is ahead is taken from its answers.
        """
        return 0.0 if self._ahead is None else max(0.0, self._clock() + self._ahead - at.timestamp())

    def now(self) -> datetime | None:
        """Return the present moment by the database's clock, or None before the first look at it."""
        return None if self._ahead is None else datetime.fromtimestamp(self._clock() + self._ahead, UTC)

    def cursor(self, key: EventKey) -> str:
        """Return the opaque text of a place."""
        return encode_log_cursor(LogCursor(self._epoch, key))

    def _is_near(self, cursor: LogCursor) -> bool:
        """Return whether all behind a cursor is in memory."""
        return cursor.epoch == self._epoch and self._ring.start <= cursor.key <= self._position

    def _hand_on(self, events: Sequence[Event], position: EventKey) -> None:
        self._ring.extend(events)
        self._position = position
        if events:
            for listener in tuple(self._listeners):
                listener(events)

    def _begin_at(self, epoch: bytes, key: EventKey) -> None:
        """Follow the log from here on, and have nothing of what was before."""
        self._epoch, self._position = epoch, key
        self._ring = Ring(key, self._most)
        self._ahead = None

    def _reset(self) -> None:
        for callback in tuple(self._on_reset):
            callback()


class LogFeed(BaseFeed):
    """Follows the log of one database for one process; implements `ports.Feed`.

    Call `start` once the database answers, `wake` after each commit, `stop` at the end.
    """

    def __init__(
        self,
        log: EventLog,
        supervisor: Supervisor,
        *,
        poll: float = POLL,
        clock: Clock = monotonic,
        ring: int = RING_EVENTS,
    ) -> None:
        super().__init__(clock, ring)
        self._log = log
        self._delay = Delay()
        self._asked: float | None = None
        self.poll = poll
        """Seconds between looks when nothing asks for one."""
        self._pending = Backoff(PENDING_FIRST, PENDING_CAP)
        self._stale = False
        self._summer: Summer | None = None
        self._service = Periodic("feed", self.run_once, supervisor, Backoff(0.1, 2.0))

    @property
    def behind(self) -> float:
        """The seconds for which something that is committed has not been handed on; 0 when nothing is held back.

        A transaction that writes and stays open, anywhere in the database cluster, holds back whatever is committed
        after it began; so does a database that can't be read.
        """
        now = self._clock()
        waits = 0.0 if self._asked is None else now - self._asked
        return max(self._delay.seconds(now), waits if waits >= HANGS else 0.0)

    @property
    def fault(self) -> str | None:
        """Why the log can't be followed now, or None."""
        return self._service.fault

    async def start(self) -> None:
        """Begin at the log's present end.

        Raises:
            Unavailable: the database does not answer.
        """
        await self._begin()
        self._service.start()

    async def stop(self) -> None:
        """Follow the log no longer. Safe twice, and before `start`."""
        await self._service.stop()

    def sum_for(self, summer: Summer) -> None:
        """Give listeners only the events that wake or stop somebody, and `summer` the sums of the others besides.

        For a process that shows no event to anybody.
        """
        self._summer = summer

    def wake(self) -> None:
        """Say that there may be new events."""
        self._service.wake()

    def doubt(self) -> None:
        """Say that the connection was lost: what answers next may be another database, or an older state of it."""
        self._stale = True
        self._service.wake()

    async def run_once(self) -> float:
        """Read what is new and hand it on; return the seconds until the next look."""
        if self._stale:
            await self._check_epoch()
        asked = self._asked = self._clock()
        try:
            batch, limit = await self._read()
        except Unavailable:
            self._delay.failed(asked)
            raise
        finally:
            self._asked = None
        self._set_clocks(asked, batch.now)
        self._delay.read(asked, batch, complete=batch.number < limit)
        if batch.number:
            self._hand_on(batch.events, batch.end)
            if batch.sums is not None and self._summer is not None:
                self._summer.add(batch.sums)
        if batch.events:
            # Sums wake nobody: under a load that always leaves something pending, they can wait for more of their kind.
            self._pending.reset()
        if batch.number == limit:
            return 0.0
        if batch.pending:
            return self._pending.next()
        self._pending.reset()
        return self.poll

    async def read(self, after: EventKey, limit: int, until: EventKey = LOG_START) -> Sequence[Event]:
        """Return up to `limit` events behind `after`, in the log's order; fewer mean that there are no more.

        None of them is one that listeners have not been handed yet: a client that is told of a change and then reads
        the task must not be given what a cache here still takes for its present state. But for `until`, which another
        process has read already: what was settled when it read is settled now.
        """
        recent = self._ring.read(after, limit) if until <= self._position else None
        if recent is not None:
            return recent
        async with self._readers:
            events = (await self._log.read(after, limit)).events
        return [event for event in events if event.key <= max(self._position, until)]

    async def resume(self, text: str) -> Resume:
        """Return the place of a cursor's text.

        Raises:
            Invalid: it is no cursor.
        """
        cursor = decode_log_cursor(text)
        if self._is_near(cursor):
            return Resume(cursor.key, recovered=True)
        place = await self._log.place()
        if cursor.epoch == place.epoch and place.floor <= cursor.key <= max(place.end, self._position):
            return Resume(cursor.key, recovered=True)
        return Resume(self._position, recovered=False)

    async def _read(self) -> tuple[Batch, int]:
        """Return what is new, and how many events were asked for at the most."""
        if self._summer is not None and self._summer.takes_sums:
            return await self._log.read_summed(self._position, SUMMED), SUMMED
        return await self._log.read(self._position, BATCH), BATCH

    def _set_clocks(self, asked: float, now: datetime) -> None:
        """Take note of how far the database's clock is ahead of this process's.

        The answer's way makes it look less and the question's way more; what was found before stays as long as it lies
        between the two. So a slow answer changes nothing, and a clock that was set is noticed at the next quick one.
        """
        least, most = now.timestamp() - self._clock(), now.timestamp() - asked
        self._ahead = least if self._ahead is None else min(max(least, self._ahead), most)

    async def _begin(self) -> None:
        place = await self._log.place()
        self._begin_at(place.epoch, place.end)
        self._delay = Delay()

    async def _check_epoch(self) -> None:
        place = await self._log.place()
        if place.epoch != self._epoch or place.end < self._position:
            logger.error("the database is not the one that was read before; all readers must begin anew")
            await self._begin()
            self._reset()
        self._stale = False
