"""The slots: so many attempts run at once, and no more.

The dispatcher offers jobs up to the number of free slots. A job has its slot from the moment it is offered until its
handler really has ended.

One task starts all that was offered. What has ended when the handlers have had their first turn, as a handler has that
waits for nothing, needs nobody to wait for it: its outcome goes to the store at once, and the same task sees to it when
the answer is there. Any other attempt, and an outcome that could not be stored at once, gets a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from taskd.domain.outcome import Outcome
from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import BaseAttempt
from taskd.worker.execute import Answer, Executor
from taskd.worker.job import Job
from taskd.worker.plan import Stop
from taskd.worker.reporter import Reporter

logger = logging.getLogger("taskd.worker")

Key = tuple[UUID, int]
"""A task's id and the number of the attempt."""

REMEMBERED = 1000
"""Cancellations kept for attempts that are not here yet."""


class Early:
    """Cancellations of attempts that are not here yet: the news of one may come before the claim's answer.

    With the task's version: its user may have had it retried since, and its attempts are counted anew.
    """

    def __init__(self) -> None:
        self._versions: OrderedDict[Key, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._versions)

    def add(self, key: Key, version: int) -> None:
        """Remember a cancellation, by the task's version with it; the oldest goes when there are too many."""
        self._versions[key] = version
        if len(self._versions) > REMEMBERED:
            self._versions.popitem(last=False)

    def take(self, job: Job) -> bool:
        """Return whether a job was cancelled before it came, and forget that."""
        return self._versions.pop(job.key, 0) > job.task.version


class Pool:
    """Runs attempts in `slots` slots.

    Args:
        make: returns the attempt that a job becomes.
        executor: runs attempts.
        reporter: takes their progress.
        supervisor: owns the tasks.
        slots: attempts that run at once, 1 or more.
        on_free: called when a slot becomes free.
        early: what was cancelled before it was offered; all pools of a process share it.
    """

    def __init__(
        self,
        make: Callable[[Job], BaseAttempt],
        executor: Executor,
        reporter: Reporter,
        supervisor: Supervisor,
        slots: int,
        on_free: Callable[[], None],
        early: Early,
    ) -> None:
        self.slots = slots
        """May be changed; what runs in more than there are goes on."""
        self.busy = 0
        """Slots in use, also by threads that were stopped and go on."""
        self._make = make
        self._executor = executor
        self._reporter = reporter
        self._supervisor = supervisor
        self._on_free = on_free
        self._offered: list[BaseAttempt] = []
        self._begun: deque[BaseAttempt] = deque()
        self._asked: dict[Answer, tuple[BaseAttempt, Outcome]] = {}
        self._answers: deque[Answer] = deque()
        self._idle: asyncio.Future[None] | None = None
        self._starter: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._open: dict[Key, BaseAttempt] = {}
        self._early = early
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def free(self) -> int:
        """Slots that nobody uses."""
        return self.slots - self.busy

    def offer(self, job: Job) -> None:
        """Run a job in a free slot.

        Raises:
            asyncio.QueueFull: there is none; the caller has claimed more than `free`.
        """
        if self.free <= 0:
            raise asyncio.QueueFull
        attempt = self._make(job)
        if self._early.take(job):
            attempt.stop(Stop.CANCEL)
        self._offered.append(attempt)
        self.busy += 1
        self._open[job.key] = attempt
        self._settled.clear()
        if self._starter is None:
            self._starter = self._supervisor.spawn(self._start_and_settle(), "slots")
        self._wake()

    def cancel(self, task_id: UUID, attempt: int, version: int | None = None) -> bool:
        """Stop an attempt because its user asked; return whether it is here.

        Args:
            version: of the task with that, if it is known: an older one than was claimed tells of an earlier run.
        """
        found = self._open.get((task_id, attempt))
        if found is None or (version is not None and version < found.job.task.version):
            return False
        found.stop(Stop.CANCEL)
        return True

    def lose(self, lease: UUID) -> int:
        """Stop all attempts under a lease that is lost, and store nothing of them; return how many there are."""
        lost = [attempt for attempt in self._open.values() if attempt.job.lease == lease]
        for attempt in lost:
            attempt.stop(Stop.LOST)
        return len(lost)

    def holds(self, lease: UUID) -> bool:
        """Return whether an attempt under this lease has no stored outcome yet."""
        return any(attempt.job.lease == lease for attempt in self._open.values())

    def release(self) -> None:
        """Stop all attempts and give their tasks back, their attempts unspent."""
        for attempt in tuple(self._open.values()):
            attempt.stop(Stop.RELEASE)

    async def wait_settled(self, seconds: float | None) -> bool:
        """Wait up to `seconds` until every outcome is stored or lost; return whether it is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        return not self._open

    async def stop(self) -> None:
        """Stop all attempts and wait for none of them; what is being stored goes on. Safe twice, and before `offer`."""
        for attempt in tuple(self._open.values()):
            attempt.stop(Stop.LOST)
        starter, self._starter = self._starter, None
        tasks = self._following | ({starter} if starter else set())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._leave()

    def _leave(self) -> None:
        """Leave what has no task of its own, now that nobody starts or settles it."""
        asked, self._asked = self._asked, {}
        for answer, (attempt, outcome) in asked.items():
            self._supervisor.spawn(self._executor.store(attempt, outcome, answer), "outcome")
        self._offered.clear()
        self._begun.clear()
        self._answers.clear()
        for attempt in tuple(self._open.values()):
            self._end(attempt)

    async def _start_and_settle(self) -> None:
        while True:
            # An error in here is a bug, and ends the process in order; the others' outcomes are stored before that.
            while self._answers:
                answer = self._answers.popleft()
                attempt, outcome = self._asked.pop(answer)
                try:
                    self._take(attempt, outcome, answer)
                except Exception as error:
                    self._give_up(attempt, error)
            if self._offered:
                offered, self._offered = self._offered, []
                self._begun.extend(offered)
                try:
                    self._executor.begin(offered)
                except Exception as error:
                    self._tell(error)
                # The handlers have their turn.
                await asyncio.sleep(0)
            while self._begun:
                attempt = self._begun.popleft()
                try:
                    self._look(attempt)
                except Exception as error:
                    self._give_up(attempt, error)
            if not self._offered and not self._answers:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle

    def _look(self, attempt: BaseAttempt) -> None:
        """See to an attempt that was begun: to its outcome, if it has ended."""
        if attempt.started and attempt.ended is None:
            self._follow(attempt, partial(self._executor.follow, attempt))
            return
        outcome = self._executor.judge(attempt)
        if outcome is None:
            self._end(attempt)
            return
        answer = self._executor.ask(outcome)
        if answer is None:
            self._store(attempt, outcome)
        else:
            self._asked[answer] = attempt, outcome
            answer.add_done_callback(self._note)

    def _note(self, answer: Answer) -> None:
        if answer in self._asked:
            self._answers.append(answer)
            self._wake()

    def _take(self, attempt: BaseAttempt, outcome: Outcome, answer: Answer) -> None:
        """See to an attempt whose outcome was stored, or could not be."""
        if answer.cancelled() or answer.exception() is not None:
            self._store(attempt, outcome, answer)
        else:
            self._executor.stored(attempt, outcome, answer.result())
            self._end(attempt)

    def _give_up(self, attempt: BaseAttempt, error: Exception) -> None:
        self._tell(error)
        self._end(attempt)

    def _tell(self, error: Exception) -> None:
        """Let the process know, which ends by it."""
        self._supervisor.spawn(_raised(error), "slots")

    def _store(self, attempt: BaseAttempt, outcome: Outcome, answer: Answer | None = None) -> None:
        storing = self._supervisor.spawn(self._executor.store(attempt, outcome, answer), "outcome")
        self._follow(attempt, partial(asyncio.shield, storing))

    def _follow(self, attempt: BaseAttempt, rest: Callable[[], Awaitable[None]]) -> None:
        task = self._supervisor.spawn(self._until_free(attempt, rest), "slot")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _until_free(self, attempt: BaseAttempt, rest: Callable[[], Awaitable[None]]) -> None:
        try:
            try:
                await rest()
            finally:
                self._settle(attempt)
            await self._executor.hold(attempt)
        finally:
            self._free()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _end(self, attempt: BaseAttempt) -> None:
        self._settle(attempt)
        self._free()

    def _free(self) -> None:
        self.busy -= 1
        self._on_free()

    def _settle(self, attempt: BaseAttempt) -> None:
        self._reporter.forget(attempt.job.key)
        # One that was given back and claimed again has the same key.
        if self._open.get(attempt.job.key) is attempt:
            del self._open[attempt.job.key]
        if not self._open:
            self._settled.set()


async def _raised(error: Exception) -> None:
    raise error
