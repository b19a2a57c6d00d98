"""Claims ready tasks for free slots, and makes scheduled ones ready when their time comes.

It claims when it is woken: a task became ready, a slot became free, or a look every few seconds found ready tasks.
While one claim is under way further wake-ups add up to one more look, and that one claims for all slots that became
free meanwhile: few claims when there is much to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from taskd.clock import Clock, monotonic
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.job import Job
from taskd.worker.lease import LeaseKeeper
from taskd.worker.plan import POLL, RARELY, claimable, pause_after_promote
from taskd.worker.ports import Queue

logger = logging.getLogger("taskd.worker")

MOST_TOLD = 20
"""Kinds that a line of the log names: whoever creates tasks may think of any number of them."""

SLACK = 0.05
"""Seconds by which two looks at one task's time may differ: the clock here and the database's tick apart."""


class Takers(Protocol):
    """Who takes jobs."""

    @property
    def free(self) -> int:
        """How many jobs they would take now. Asked for before each claim, whose jobs are offered at once."""

    def offer(self, job: Job) -> None:
        """Take a job; never called for more than `free`."""


class Dispatcher:
    """Hands ready tasks to who takes them, as many as they have free slots.

    Args:
        queue: where tasks are claimed.
        keeper: has the lease to claim with.
        takers: of the jobs.
        kinds: returns the kinds that they take.
        supervisor: owns the loop.
    """

    def __init__(
        self,
        queue: Queue,
        keeper: LeaseKeeper,
        takers: Takers,
        kinds: Callable[[], Sequence[str]],
        supervisor: Supervisor,
    ) -> None:
        self._queue = queue
        self._keeper = keeper
        self._pool = takers
        self._kinds = kinds
        self._draining = False
        self._more = True
        self._claiming = asyncio.Lock()
        self._service = Periodic("dispatcher", self.run_once, supervisor, Backoff(0.1, 2.0))

    @property
    def fault(self) -> str | None:
        """Why nothing can be claimed now, or None."""
        return self._service.fault

    def start(self) -> None:
        """Begin to claim."""
        self._service.start()

    def wake(self) -> None:
        """Say that there may be ready tasks, or that there is a lease to claim them with."""
        self._more = True
        self._service.wake()

    def slot_freed(self) -> None:
        """Say that a slot is free: worth a claim only if the last one left something."""
        if self._more:
            self._service.wake()

    async def drain(self, seconds: float) -> None:
        """Claim no more, and return when the claim that is under way has handed over what it got.

        A claim that takes longer than `seconds` is given up, and with it the lease: nobody knows what it claimed.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._claiming:
                pass
        await self._service.stop()

    async def run_once(self) -> float:
        """Claim for the free slots, until there are none or nothing is ready; return the seconds until the next look.

        Each claim is on its way before those that the last one brought have their turn: the database claims while they
        run.
        """
        async with self._claiming:
            while True:
                kinds = self._kinds()
                lease = self._keeper.lease
                trusted = self._keeper.trusted
                asked = claimable(self._pool.free, trusted=trusted, draining=self._draining, kinds=len(kinds))
                if lease is None or not asked:
                    return POLL
                found = await self._claim(lease, kinds, asked)
                if found < asked:
                    return RARELY
                if self._service.fault is not None:
                    # It is over with this claim, and whoever calls this says so once it returns.
                    return 0.0

    async def _claim(self, lease: UUID, kinds: Sequence[str], asked: int) -> int:
        """Claim up to so many, hand them over, and return how many there were."""
        self._more = False
        try:
            tasks = await self._queue.claim(lease, kinds, asked)
        except (Unavailable, asyncio.CancelledError):
            # Its answer is lost, but it may have claimed tasks that nobody here knows. They are taken back when
            # the lease ends, so no more is claimed under it.
            self._more = True
            self._keeper.retire(lease)
            raise
        for task in tasks:
            self._pool.offer(Job(task, lease))
        self._more = self._more or len(tasks) >= asked
        return len(tasks)


class Promoter:
    """Makes scheduled tasks ready, timed for the next one that is due."""

    def __init__(
        self, queue: Queue, supervisor: Supervisor, on_ready: Callable[[], None], *, clock: Clock = monotonic
    ) -> None:
        self._queue = queue
        self._on_ready = on_ready
        self._clock = clock
        self._next_due: float | None = None
        self._look_at = 0.0
        self._service = Periodic("promoter", self.run_once, supervisor, Backoff(0.1, 2.0))

    def start(self) -> None:
        """Begin to promote."""
        self._service.start()

    async def stop(self) -> None:
        """Promote no more. Safe twice, and before `start`."""
        await self._service.stop()

    def due_in(self, seconds: float) -> None:
        """Say that a task is due in so many seconds: looks then, if not sooner anyway."""
        due = self._clock() + seconds
        self._next_due = due if self._next_due is None else min(due, self._next_due)
        if due < self._look_at:
            self._service.wake()

    async def run_once(self) -> float:
        """Promote what is due; return the seconds until the next look."""
        due, self._next_due = self._next_due, None
        # What is said to be due during the call counts below, and needs no waking.
        self._look_at = 0.0
        try:
            pause = await self._queue.promote()
        except Unavailable:
            self._next_due = due
            raise
        now = self._clock()
        if pause is not None:
            self._next_due = min(now + pause, self._next_due or math.inf)
        rest = pause_after_promote(None if self._next_due is None else max(0.0, self._next_due - now))
        self._look_at = now + rest
        gone = due is not None and (pause is None or now + pause > due + SLACK)
        if gone or pause == 0.0:
            # What was said to be due is no longer scheduled.
            self._on_ready()
        return rest


class WaitingKinds:
    """Looks every few seconds for ready tasks, whatever wake-ups there were.

    Those that nobody here can process stay `new`, and somebody should know. Of the others `on_ready` is told: if they
    wait for want of a free slot, it finds that out without the database.
    """

    def __init__(
        self, queue: Queue, handles: Callable[[str], bool], supervisor: Supervisor, on_ready: Callable[[], None]
    ) -> None:
        self.kinds: tuple[str, ...] = ()
        """Kinds with ready tasks and without a handler in this process, at the last look."""
        self._queue = queue
        self._handles = handles
        self._on_ready = on_ready
        self._service = Periodic("waiting kinds", self.run_once, supervisor, Backoff(0.5, 5.0))

    @property
    def told(self) -> str:
        """Those kinds as a line of the log can have them."""
        rest = len(self.kinds) - MOST_TOLD
        return ", ".join(self.kinds[:MOST_TOLD]) + (f", and {rest} more" if rest > 0 else "")

    def start(self) -> None:
        """Begin to watch."""
        self._service.start()

    async def stop(self) -> None:
        """Watch no more. Safe twice, and before `start`."""
        await self._service.stop()

    async def run_once(self) -> float:
        """Look once; return the seconds until the next look."""
        waiting = await self._queue.waiting_kinds()
        kinds = tuple(sorted(kind for kind in waiting if not self._handles(kind)))
        if len(kinds) < len(waiting):
            self._on_ready()
        if kinds != self.kinds:
            self.kinds = kinds
            if kinds:
                logger.warning("tasks wait that no handler of this process is for: %s", self.told)
            else:
                logger.info("no tasks wait for want of a handler any more")
        return POLL
