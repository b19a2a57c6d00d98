"""The slots: so many attempts run at once, and no more.

The dispatcher offers jobs up to the number of free slots; one asyncio worker for each slot takes them, started when its
slot is first needed. A job has its slot from the moment it is offered until its
handler really has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from uuid import UUID

from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import BaseAttempt
from taskd.worker.execute import Executor
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
        executor: runs one attempt.
        reporter: takes their progress.
        supervisor: owns the workers.
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
        self._jobs: deque[BaseAttempt] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._workers: list[asyncio.Task[None]] = []
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
        self._jobs.append(attempt)
        self._wake_one()
        self.busy += 1
        if self.busy > len(self._workers):
            self._workers.append(self._supervisor.spawn(self._work(), f"slot {len(self._workers)}"))
        self._open[job.key] = attempt
        self._settled.clear()

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
        """Cancel the workers, whatever they do. Safe twice, and before `start`."""
        workers, self._workers = self._workers, []
        for attempt in tuple(self._open.values()):
            attempt.stop(Stop.LOST)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    async def _work(self) -> None:
        while True:
            while not self._jobs:
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            attempt = self._jobs.popleft()
            try:
                try:
                    await self._executor.run(attempt)
                finally:
                    self._settle(attempt)
                await self._executor.hold(attempt)
            finally:
                self.busy -= 1
                self._on_free()

    def _wake_one(self) -> None:
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return

    def _settle(self, attempt: BaseAttempt) -> None:
        self._reporter.forget(attempt.job.key)
        # One that was given back and claimed again has the same key.
        if self._open.get(attempt.job.key) is attempt:
            del self._open[attempt.job.key]
        if not self._open:
            self._settled.set()
