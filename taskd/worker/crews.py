"""The workers elsewhere: their sessions, and who of them gets which task.

Those who take the same kinds are a crew: one claim serves them all, for as many tasks as they have free slots together,
and each task goes to the one with the most. So a hundred workers cost no more claims than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush
from uuid import UUID

from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import BaseAttempt
from taskd.worker.dispatcher import Dispatcher
from taskd.worker.execute import Executor
from taskd.worker.job import Job
from taskd.worker.lease import LeaseKeeper
from taskd.worker.plan import Stop
from taskd.worker.pool import Early
from taskd.worker.ports import Queue
from taskd.worker.reporter import Reporter
from taskd.worker.session import Session, Turn, limits_of

logger = logging.getLogger("taskd.worker")

MOST = 1000
"""Sessions of one process."""

LOOK_EVERY = 1.0
"""Seconds between looks for sessions that are over, at the most."""


CLAIM_WITHIN = 5.0
"""Seconds that a claim under way has to hand over what it got when nobody wants more. One that is broken off costs the
whole process its lease, and what it got the attempts."""


UNWANTED_FOR = 1.0
"""Seconds after which a task that no worker could take is due again."""


class Crew:
    """The sessions that take the same kinds.

    Args:
        give_back: takes a job that nobody of them takes.
    """

    def __init__(self, give_back: Callable[[Job], None]) -> None:
        self.sessions: set[Session] = set()
        self._give_back = give_back
        self.dispatcher: Dispatcher
        self._room: list[tuple[int, str, Session]] = []

    @property
    def free(self) -> int:
        """How many more tasks they take now."""
        # A heap, the roomiest first: to look at a thousand sessions for each of hundreds of jobs would take too long.
        self._room = [(-session.free, session.id, session) for session in self.sessions if session.free]
        heapify(self._room)
        return sum(-negative for negative, _, _ in self._room)

    def offer(self, job: Job) -> None:
        """Give a job to the one with the most free slots that can take it; back, if there is none any more."""
        passed = []
        taken = False
        while self._room and not taken:
            entry = heappop(self._room)
            session = entry[2]
            if session.knows(job.key):
                passed.append(entry)
            elif session.free:
                session.pool.offer(job)
                taken = True
                if session.free:
                    heappush(self._room, (-session.free, session.id, session))
        for entry in passed:
            heappush(self._room, entry)
        if not taken:
            self._give_back(job)


class Unwanted(BaseAttempt):
    """A job that nobody took."""

    def _ask_to_stop(self, first: bool) -> None:
        """There is nobody to ask."""


class Crews:
    """All sessions of this process.

    Args:
        queue: where tasks are claimed.
        keeper: has the lease under which they run.
        executor, reporter: for all attempts of the process.
        supervisor: owns what runs.
        early: what was cancelled before it was claimed.
        clock: monotonic seconds.
        most: see `MOST`.
    """

    def __init__(
        self,
        queue: Queue,
        keeper: LeaseKeeper,
        executor: Executor,
        reporter: Reporter,
        supervisor: Supervisor,
        early: Early,
        *,
        clock: Clock = monotonic,
        most: int = MOST,
    ) -> None:
        self._queue = queue
        self._keeper = keeper
        self._executor = executor
        self._reporter = reporter
        self._supervisor = supervisor
        self._clock = clock
        self._most = most
        self._sessions: dict[str, Session] = {}
        self._crews: dict[tuple[str, ...], Crew] = {}
        self._early = early
        self._returning: dict[asyncio.Task[None], BaseAttempt] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._draining: float | None = None
        self._refused = 0
        self.ended = asyncio.Event()
        """Set when all streams are to end."""
        self._service = Periodic("remote workers", self.run_once, supervisor, Backoff(0.1, 1.0))

    @property
    def busy(self) -> int:
        """Attempts that run at workers elsewhere."""
        return sum(session.pool.busy for session in self._sessions.values())

    @property
    def slots(self) -> int:
        """Attempts that may run there at once."""
        return sum(session.pool.slots for session in self._sessions.values() if session.attached)

    @property
    def refused(self) -> int:
        """Results that were of no attempt of their worker's."""
        return self._refused + sum(session.refused for session in self._sessions.values())

    @property
    def sessions(self) -> Collection[Session]:
        """Those that are not over."""
        return self._sessions.values()

    def handles(self, kind: str) -> bool:
        """Return whether a worker is there for this kind."""
        return any(kind in kinds for kinds in self._crews)

    def start(self) -> None:
        """Begin to look for sessions that are over."""
        self._service.start()

    def open(self, user: User, kinds: tuple[str, ...], slots: int, lease: float, name: str) -> Session:
        """Return a new session.

        Raises:
            Unavailable: there are too many, or the process stops.
        """
        if self._draining is not None:
            raise Unavailable("the server stops: work for another")
        if len(self._sessions) >= self._most:
            raise Unavailable(f"there are {self._most} workers already")
        crew = self._crews.get(kinds) or self._make_crew(kinds)
        session = Session(
            user, kinds, slots, lease, name, self._executor, self._reporter, self._supervisor,
            crew.dispatcher.slot_freed, self._early, self._clock,
        )  # fmt: skip
        crew.sessions.add(session)
        self._sessions[session.id] = session
        return session

    def resume(self, session_id: str, user: User, kinds: tuple[str, ...], slots: int, lease: float) -> Session | None:
        """Return the session of this id, to go on, if it is this user's, of these kinds, and not over."""
        session = self._sessions.get(session_id)
        if session is None or session.over or session.is_silent:
            return None
        if session.user.name != user.name or session.kinds != kinds:
            return None
        session.pool.slots = slots
        session.lease = lease
        session.leaving = False
        return session

    def attach(self, session: Session, running: Sequence[Turn]) -> int:
        """Begin a stream of a session, and look for tasks for it."""
        stream = session.attach(running)
        self._crews[session.kinds].dispatcher.wake()
        return stream

    def detach(self, session: Session, stream: int, *, closed: bool = False) -> None:
        """A stream has ended. Its session waits for the worker to come back, if it has anything to come back for.

        Args:
            closed: the worker has closed it; else it broke, and what the worker has may still run.
        """
        session.detach(stream)
        left = closed and session.leaving
        # A server that stops takes no more streams: nobody can come back to it.
        if not session.attached and (left or not session.pool.busy or self._draining is not None):
            session.left()
            self._forget(session)
        self._service.wake()

    def gained(self) -> None:
        """There is a lease to claim with."""
        for crew in self._crews.values():
            crew.dispatcher.wake()

    def ready(self, kind: str) -> None:
        """There is a ready task of this kind."""
        for kinds, crew in self._crews.items():
            if kind in kinds:
                crew.dispatcher.wake()

    def lost(self, lease: UUID) -> None:
        """Stop what runs under a lost lease."""
        for session in self._sessions.values():
            session.pool.lose(lease)
        for attempt in self._returning.values():
            if attempt.job.lease == lease:
                attempt.stop(Stop.LOST)

    def cancel(self, task_id: UUID, attempt: int, version: int | None = None) -> bool:
        """Stop an attempt because its user asked; return whether it is at a worker of this process."""
        return any(session.pool.cancel(task_id, attempt, version) for session in tuple(self._sessions.values()))

    def holds(self, lease: UUID) -> bool:
        """Return whether an attempt under this lease has no stored outcome yet."""
        if any(attempt.job.lease == lease for attempt in self._returning.values()):
            return True
        return any(session.pool.holds(lease) for session in self._sessions.values())

    async def run_once(self) -> float:
        """End the sessions whose lease is over; return the seconds until the next look."""
        for session in tuple(self._sessions.values()):
            if session.is_silent and not session.attached and not session.over:
                logger.warning("worker %s is gone; its %d tasks are taken back", session.name, session.pool.busy)
                session.expire()
                self._forget(session)
        gone = [session for session in self._sessions.values() if not session.attached and not session.over]
        waits = [session.silent_in for session in gone]
        return max(0.01, min([LOOK_EVERY, *waits]))

    def announce(self, seconds: float) -> None:
        """Give out no more, and tell all workers that they have so many seconds."""
        self._draining = seconds
        for session in tuple(self._sessions.values()):
            session.drain(seconds)
            if not session.attached:
                session.left()
                self._forget(session)

    async def drain(self, seconds: float) -> None:
        """Return when the claims that are under way have handed over what they got; see `announce`."""
        if self._draining is None:
            self.announce(seconds)
        within = max(seconds, CLAIM_WITHIN)
        await asyncio.gather(*(crew.dispatcher.drain(within) for crew in tuple(self._crews.values())))
        # Sessions that are over, and crews that were theirs alone, may have a claim to hand over, too.
        if self._ending:
            await asyncio.wait(tuple(self._ending), timeout=CLAIM_WITHIN)

    def release(self) -> None:
        """Stop all attempts and give their tasks back, their attempts unspent."""
        for session in self._sessions.values():
            session.pool.release()

    async def wait_settled(self, seconds: float) -> bool:
        """Wait up to `seconds` until every outcome is stored or lost; return whether it is so."""
        waits = [session.pool.wait_settled(seconds) for session in self._sessions.values()]
        return all(await asyncio.gather(self._wait_returned(seconds), *waits))

    async def _wait_returned(self, seconds: float) -> bool:
        if self._returning:
            await asyncio.wait(tuple(self._returning), timeout=seconds)
        return not self._returning

    async def stop(self) -> None:
        """End all streams and sessions. Safe twice, and before `start`."""
        self.ended.set()
        await self._service.stop()
        for session in tuple(self._sessions.values()):
            await self._end(session)
        self._sessions.clear()

    def _make_crew(self, kinds: tuple[str, ...]) -> Crew:
        crew = self._crews[kinds] = Crew(self._give_back)
        crew.dispatcher = Dispatcher(self._queue, self._keeper, crew, lambda: kinds, self._supervisor)
        crew.dispatcher.start()
        return crew

    def _give_back(self, job: Job) -> None:
        """Give back what was claimed for workers that are gone."""
        attempt = Unwanted(job, limits_of(job))
        task = self._supervisor.spawn(self._executor.give_back(attempt, UNWANTED_FOR), "give back")
        self._returning[task] = attempt
        task.add_done_callback(self._returning.pop)

    def _forget(self, session: Session) -> None:
        """Let a session end, once what it has left is stored."""
        if session.over:
            return
        session.over = True
        task = self._supervisor.spawn(self._settle(session), "end of a session")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _settle(self, session: Session) -> None:
        # It stays among the sessions until its outcomes are stored: they are still this process's.
        await session.pool.wait_settled(None)
        await self._end(session)

    async def _end(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is None:
            return
        self._refused += session.refused
        await session.pool.stop()
        crew = self._crews.get(session.kinds)
        if crew is None:
            return
        crew.sessions.discard(session)
        if not crew.sessions:
            del self._crews[session.kinds]
            # A claim that is under way may have taken tasks: it has to hand them over, to be given back.
            await crew.dispatcher.drain(CLAIM_WITHIN)
