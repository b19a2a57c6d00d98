"""How many tasks there are in each status, how long they wait, how long they take: known at any time, never counted.

The store keeps the numbers as of some place of the log. A process reads them once, at the place where its own feed
stands, and from then on adds and subtracts what each event says: where the task is, and where it was. So the numbers
are those of the whole store, exact at the feed's place, the same in every process, and looking at them costs nothing.

A feed that shows its events to nobody may sum them before they come here. A sum can't be split, and the place of the
store's numbers may be in the midst of one, so it takes sums only once the feed is at that place or beyond.

A transaction that stays open, anywhere in the database cluster, can hold back the log. Then the store is asked for the
numbers with all that is committed, now and then, and those are shown until the log goes on.

The age of the oldest ready task is asked of the database now and then, and only when some task has been ready for a
while: a queue that is emptied all the time is never asked for. In between the age grows by this process's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from taskd.clock import Clock, monotonic
from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.model import Status
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.store.events import Sums
from taskd.store.totals import TotalsStore

LOOK_EVERY = 2.0
"""Seconds between looks at the oldest ready task, while there is one, and at the numbers while the log is held back."""

HELD_BACK = 1.0
"""Seconds of delay from which on the log counts as held back."""

SHARE, LONGEST = 10, 4.0
"""A look at the numbers that takes long is followed by so many times as long a pause, up to so many seconds."""


WORKER_LOST = "WorkerLost"
"""The error of a task that was taken back (`rescue` in store/sql/leases.sql)."""


class Follows(Protocol):
    """Where the feed stands."""

    @property
    def position(self) -> EventKey: ...

    @property
    def behind(self) -> float: ...


class Census:
    """Counts along the log. Call `start` once the feed stands somewhere, `observe` with each batch, `stop` at the end.

    Args:
        totals: the store's numbers.
        feed: whose batches `observe` is given.
        supervisor: owns the loop.
        clock: monotonic seconds.
    """

    def __init__(self, totals: TotalsStore, feed: Follows, supervisor: Supervisor, *, clock: Clock = monotonic) -> None:
        self._totals = totals
        self._feed = feed
        self._clock = clock
        self._counts: dict[Status, int] | None = None
        self._present: Mapping[Status, int] | None = None
        self._from = LOG_START
        self._early: list[Event] = []
        self._anew = False
        self._oldest: tuple[float, float] | None = None
        self._look_at = 0.0
        self._ended = 0
        self._took = 0.0
        self._service = Periodic("census", self.run_once, supervisor, Backoff(0.1, 2.0))

    @property
    def counts(self) -> Mapping[Status, int]:
        """The number of tasks in each status; empty until it is known."""
        if self._present is not None and self._is_held_back:
            return self._present
        return self._counts or {}

    @property
    def oldest_ready(self) -> float:
        """The seconds for which the oldest ready task has been ready; 0 when there is none."""
        if self._oldest is None or not self._waits:
            return 0.0
        seconds, at = self._oldest
        return seconds + self._clock() - at

    @property
    def average_processing(self) -> float | None:
        """Mean seconds of the attempts that any process has ended since this one started; None before the first."""
        return self._took / self._ended if self._ended else None

    def start(self) -> None:
        """Begin to count."""
        self._service.start()

    async def stop(self) -> None:
        """Count no more. Safe twice, and before `start`."""
        await self._service.stop()

    @property
    def takes_sums(self) -> bool:
        """Whether all events to come are behind the place from which it counts."""
        return self._counts is not None and self._feed.position >= self._from

    def add(self, sums: Sums) -> None:
        """Take note of what many events come to."""
        if self._counts is None:
            raise RuntimeError("sums came that nobody can tell from what the store's numbers hold")
        self._ended += sums.ended
        self._took += sums.took
        for status, step in sums.steps.items():
            self._counts[status] += step

    def observe(self, events: Sequence[Event]) -> None:
        """Take note of what happened; a listener of the feed."""
        waited = self._waits
        for event in events:
            if has_ended_an_attempt(event) and event.task.started_at is not None:
                self._ended += 1
                self._took += (event.at - event.task.started_at).total_seconds()
        if self._counts is None:
            self._early += events
        else:
            self._count(self._counts, events)
        if self._waits and not waited:
            now = self._clock()
            self._oldest, self._look_at = (0.0, now), now + LOOK_EVERY
            self._service.wake()

    def begin_anew(self) -> None:
        """The database is another one: ask for its numbers."""
        self._counts, self._present, self._early, self._oldest, self._anew = None, None, [], None, True
        self._service.wake()

    async def run_once(self) -> float:
        """Ask for what the log does not tell, if it is time; return the seconds until the next look."""
        while self._counts is None:
            await self._load()
        asked = self._clock()
        self._present = await self._totals.present() if self._is_held_back else None
        pause = max(LOOK_EVERY, min(LONGEST, SHARE * (self._clock() - asked)))
        if not self._waits:
            self._oldest = None
        elif asked < self._look_at:
            return min(pause, self._look_at - asked)
        else:
            seconds = await self._totals.oldest_ready()
            self._oldest, self._look_at = None if seconds is None else (seconds, asked), asked + LOOK_EVERY
        return pause

    @property
    def _is_held_back(self) -> bool:
        return self._feed.behind >= HELD_BACK

    @property
    def _waits(self) -> bool:
        return self.counts.get(Status.NEW, 0) > 0

    async def _load(self) -> None:
        self._anew, self._early = False, []
        totals = await self._totals.at(self._feed.position)
        if self._anew:
            return
        counts = {status: totals.counts.get(status, 0) for status in Status}
        # The store's numbers may be of a later place than this process has read to, never of an earlier one.
        self._from = totals.key
        self._count(counts, self._early)
        self._counts, self._early = counts, []

    def _count(self, counts: dict[Status, int], events: Sequence[Event]) -> None:
        for event in events:
            # An event of before there was a `was` may be told still; the store's numbers hold what it did.
            if event.key > self._from and (event.was is not None or event.type is EventType.CREATED):
                if event.type is not EventType.DELETED:
                    counts[event.task.status] += 1
                if event.was is not None:
                    counts[event.was] -= 1


def has_ended_an_attempt(event: Event) -> bool:
    """Return whether the event is the end of an attempt that its own process ended, other than by giving it back."""
    if event.was is not Status.RUNNING or event.task.status is Status.RUNNING:
        return False
    # What is given back keeps the failure of an earlier attempt, if it has one.
    failed = event.task.error if event.task.error is not None and event.task.error.at == event.at else None
    if event.type is EventType.RETRYING and failed is None:
        return False
    # Nobody knows how long the work of a process went on that is gone.
    return failed is None or failed.type != WORKER_LOST
