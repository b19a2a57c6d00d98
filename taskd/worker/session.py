"""A worker elsewhere, as this process knows it: its slots, the attempts that it runs, and what is to be said to it.

A session outlives its stream: when that breaks, the worker may come back and go on, until it has not been heard for the
time of its lease. Only then are its attempts lost to it: they end as those of a process that died, and are spent. What
it runs has the lease of this process, so if this process dies, others take everything back.

Nothing here sends or receives: messages wait to be fetched, whoever carries them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID, uuid4

from taskd.clock import Clock
from taskd.domain.model import Task, User
from taskd.domain.outcome import Report
from taskd.domain.retry import RetryPolicy
from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import BaseAttempt
from taskd.worker.execute import Executor
from taskd.worker.job import Job
from taskd.worker.plan import Limits, Stop
from taskd.worker.pool import Early, Key, Pool
from taskd.worker.reporter import Reporter
from taskd.worker.result import Ended, Failed, GivenBack

Turn = tuple[UUID, int, int]
"""A task's id, the number of the attempt, and that of its claim: 0 from a worker that does not repeat it."""

MOST_ACKS = 10_000
"""Acknowledgements that may wait for a worker which does not read; no more of its results are taken meanwhile."""

LOST = Failed("WorkerLost", "the worker that ran it is gone", after=0.0)


def limits_of(job: Job) -> Limits:
    """Return what holds for an attempt elsewhere: the task's own limits."""
    return Limits(job.task.timeout_seconds, job.task.max_attempts, RetryPolicy())


class RemoteAttempt(BaseAttempt):
    """An attempt that a worker elsewhere runs: it can only be told, and ends with the worker's word."""

    def __init__(self, job: Job, session: Session, claim: int) -> None:
        super().__init__(job, limits_of(job))
        self.turn: Turn = (*job.key, claim)
        self.judged = False
        """Whether its outcome is settled: what the worker says of it from then on comes too late."""
        self._session = session

    def is_turn(self, turn: Turn) -> bool:
        """Return whether a worker means this one."""
        return turn == self.turn or (turn[2] == 0 and turn[:2] == self.turn[:2])

    def _start(self, supervisor: Supervisor) -> None:
        """Have it handed out."""
        self._session.hand_out(self)

    def end(self, ended: Ended) -> None:
        """Take the worker's word, or what stands for it; the first one counts."""
        if self.ended is None:
            self._end(ended)

    def _ask_to_stop(self, first: bool) -> None:
        self._session.ask_to_stop(self)

    def settled(self, stored: bool) -> None:
        """Take note of whether its outcome was stored."""
        self.judged = True
        self._session.settle(self, stored)


@dataclass(slots=True, eq=False, repr=False)
class Outgoing:
    """What is to be said to a worker."""

    tasks: list[Task] = field(default_factory=list)
    claims: list[int] = field(default_factory=list)
    """The number of each one's claim."""
    cancels: dict[Turn, Stop] = field(default_factory=dict)
    acks: list[tuple[Turn, bool]] = field(default_factory=list)
    drain: float | None = None
    ping: bool = False


class Session:
    """One worker elsewhere.

    Args:
        user: whose it is: only they may take it up again.
        kinds: of tasks that it has handlers for, sorted.
        slots: attempts that it runs at once.
        lease: seconds that it may be silent.
        name: for who looks.
        executor, reporter, supervisor: of the worker's pool.
        on_free: called when a slot becomes free.
        early: what was cancelled before it was claimed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        user: User,
        kinds: tuple[str, ...],
        slots: int,
        lease: float,
        name: str,
        executor: Executor,
        reporter: Reporter,
        supervisor: Supervisor,
        on_free: Callable[[], None],
        early: Early,
        clock: Clock,
    ) -> None:
        self.id = uuid4().hex
        self.user = user
        self.kinds = kinds
        self.lease = lease
        self.name = name
        claims = count(1)
        self.pool = Pool(
            lambda job: RemoteAttempt(job, self, next(claims)), executor, reporter, supervisor, slots, on_free, early
        )
        self.leaving = False
        """It wants no more tasks."""
        self.over = False
        """Nobody will take it up again."""
        self.refused = 0
        """Results that were of none of its attempts."""
        self.woken = asyncio.Event()
        """Set when there is something to be said."""
        self._reporter = reporter
        self._clock = clock
        self._heard_at = clock()
        self._handed_out: dict[Key, RemoteAttempt] = {}
        self._outgoing = Outgoing()
        self._drain: float | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._stream = 0
        self.attached = False
        """Whether there is a stream."""

    # For who hands out tasks.

    @property
    def free(self) -> int:
        """How many more tasks it takes now."""
        return max(0, self.pool.free) if self.attached and not self.leaving and self._drain is None else 0

    def knows(self, key: Key) -> bool:
        """Return whether it has an attempt of this key that it has not spoken of.

        A user may cancel a task and have it retried, and its attempts are counted anew, while the handler here does not
        end: of two attempts with one key nobody could tell whose a result is.
        """
        return key in self._handed_out

    @property
    def silent_in(self) -> float:
        """Seconds until its lease is over, unless it is heard before."""
        return self._heard_at + self.lease - self._clock()

    @property
    def look_in(self) -> float:
        """Seconds until it is to be asked for a sign of life, or its lease is over."""
        return max(0.0, min(self.lease / 3, self.silent_in))

    @property
    def is_silent(self) -> bool:
        """Whether its lease is over."""
        return self.silent_in <= 0

    def drain(self, seconds: float) -> None:
        """Give it no more tasks, and tell it that it has so many seconds for those that it has."""
        self._drain = self._outgoing.drain = seconds
        self.woken.set()

    def expire(self) -> None:
        """Take its attempts for lost."""
        self._end_all(LOST)

    # For its attempts.

    def hand_out(self, attempt: RemoteAttempt) -> None:
        """Say that there is a task for it; if nobody is there to be told, it is given back."""
        if self.over or not self.attached:
            attempt.end(GivenBack())
            return
        self._handed_out[attempt.job.key] = attempt
        self._outgoing.tasks.append(attempt.job.task)
        self._outgoing.claims.append(attempt.turn[2])
        self.woken.set()

    def ask_to_stop(self, attempt: RemoteAttempt) -> None:
        """Say that an attempt is to stop, and why."""
        key = attempt.job.key
        if self._handed_out.get(key) is attempt and attempt.ended is None and attempt.stopped is not None:
            self._outgoing.cancels[attempt.turn] = attempt.stopped
            self.woken.set()

    def settle(self, attempt: RemoteAttempt, stored: bool) -> None:
        """Acknowledge the result of an attempt, if it has come."""
        key = attempt.job.key
        if attempt.ended is not None and self._handed_out.get(key) is attempt:
            self._acknowledge(attempt.turn, stored)

    def _acknowledge(self, turn: Turn, accepted: bool) -> None:
        self._outgoing.acks.append((turn, accepted))
        attempt = self._handed_out.get(turn[:2])
        if attempt is not None and attempt.is_turn(turn):
            del self._handed_out[turn[:2]]
        if len(self._outgoing.acks) >= MOST_ACKS:
            self._room.clear()
        self.woken.set()

    # For its stream.

    def attach(self, running: Sequence[Turn]) -> int:
        """Begin a stream, and return its number. What it was given and does not know of, it never got.

        Args:
            running: what it says that it runs, or has results of.
        """
        self._stream += 1
        self.attached = True
        self.heard()
        strange = set(running)
        self._outgoing = Outgoing(drain=self._drain)
        self._room.set()
        # The stream before this one is told too, and finds that it is over.
        before, self.woken = self.woken, asyncio.Event()
        before.set()
        for key, attempt in tuple(self._handed_out.items()):
            known = {turn for turn in (attempt.turn, (*key, 0)) if turn in strange}
            strange -= known
            if not known:
                attempt.end(GivenBack())
                del self._handed_out[key]
            elif attempt.stopped is not None:
                self._outgoing.cancels[attempt.turn] = attempt.stopped
        for turn in strange:
            self._outgoing.cancels[turn] = Stop.LOST
        self.woken.set()
        return self._stream

    def is_current(self, stream: int) -> bool:
        """Return whether a stream is the session's last one."""
        return stream == self._stream

    def detach(self, stream: int) -> None:
        """A stream has ended; its last one leaves the session without any."""
        if self.is_current(stream):
            self.attached = False

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._outgoing.ping = True
        self.woken.set()

    def heard(self) -> None:
        """It has given a sign of life."""
        self._heard_at = self._clock()

    def leave(self) -> None:
        """It wants no more tasks."""
        self.leaving = True

    def left(self) -> None:
        """It has left in order: what is still open was not done."""
        self._end_all(GivenBack())

    def result(self, turn: Turn, ended: Ended) -> None:
        """Take its word on how an attempt ended."""
        attempt = self._handed_out.get(turn[:2])
        if attempt is None or not attempt.is_turn(turn):
            self.refused += 1
            self._acknowledge(turn, False)
        elif attempt.ended is None:
            attempt.end(ended)
            # What was stopped and did not answer in time was judged without its word.
            if attempt.judged:
                self._acknowledge(turn, False)

    def progress(self, turn: Turn, fraction: float, note: str | None) -> None:
        """Take its word on how far an attempt is; of one that is not its own nothing is known."""
        attempt = self._handed_out.get(turn[:2])
        if attempt is not None and attempt.is_turn(turn) and attempt.ended is None:
            self._reporter.put(Report(*attempt.job.key, attempt.job.lease, fraction, note))

    async def room(self) -> None:
        """Wait while too much is to be said to it already."""
        await self._room.wait()

    def fetch(self) -> Outgoing:
        """Return what is to be said now; it is taken as said."""
        outgoing, self._outgoing = self._outgoing, Outgoing()
        self.woken.clear()
        self._room.set()
        return outgoing

    def _end_all(self, ended: Ended) -> None:
        for attempt in tuple(self._handed_out.values()):
            attempt.end(ended)
        self._handed_out.clear()
