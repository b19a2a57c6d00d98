"""The worker as a whole: builds its parts, starts them, drains them.

Attempts run in this process's own slots, at workers elsewhere whose streams end here, or both. Whichever: all run under
this process's lease, and it keeps the house: what is due becomes ready, what the dead held is taken back, what is old
goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from uuid import UUID

from taskd.clock import Clock, monotonic
from taskd.domain.event import Event
from taskd.domain.model import Status
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import PartHealth
from taskd.worker.attempt import Attempt
from taskd.worker.cleaner import Cleaner
from taskd.worker.context import Context
from taskd.worker.crews import Crews
from taskd.worker.dispatcher import Dispatcher, Promoter, WaitingKinds
from taskd.worker.execute import GRACE, Executor
from taskd.worker.job import Job
from taskd.worker.lease import LeaseKeeper
from taskd.worker.plan import limits_of
from taskd.worker.pool import Early, Pool
from taskd.worker.ports import Leases, Queue, Sweep
from taskd.worker.reaper import Reaper
from taskd.worker.registry import Registry
from taskd.worker.reporter import Reporter

logger = logging.getLogger("taskd.worker")

STORE_WITHIN = 5.0
"""Seconds after the drain's deadline in which outcomes are still stored: handlers get their grace, and the database
one outage's worth of patience."""


class Worker:
    """Claims tasks and has them run.

    Call `start` once the database answers, `observe` with each batch of events, `drain` then `stop` at the end.

    Args:
        queue, leases, sweep: the store's ports.
        registry: the handlers; may grow while the worker runs.
        supervisor: owns all background tasks; stop the worker before it.
        slots: attempts that run here at once (`TASKD_CONCURRENCY`); 0: no handler runs here.
        role, name: for who looks into the table of leases; the name defaults to host and process id.
        grace: seconds that a stopped handler has to tidy up.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        queue: Queue,
        leases: Leases,
        sweep: Sweep,
        registry: Registry,
        supervisor: Supervisor,
        *,
        slots: int,
        role: str = "worker",
        name: str = "",
        grace: float = GRACE,
        clock: Clock = monotonic,
    ) -> None:
        self.registry = registry
        self._grace = grace
        self._hurried = False
        self._state = "not started"
        name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.keeper = LeaseKeeper(leases, supervisor, role=role, name=name, holder=self, clock=clock)
        self.promoter = Promoter(queue, supervisor, self.wake, clock=clock)
        self.executor = Executor(queue, supervisor, self.keeper.trusts, self.promoter.due_in, grace=grace)
        self.reporter = Reporter(queue, supervisor)
        self.early = Early()
        self.pool = Pool(self._attempt, self.executor, self.reporter, supervisor, slots, self._slot_freed, self.early)
        self.dispatcher = Dispatcher(queue, self.keeper, self.pool, lambda: registry.kinds, supervisor)
        self.crews = Crews(queue, self.keeper, self.executor, self.reporter, supervisor, self.early, clock=clock)
        self.waiting = WaitingKinds(queue, self._handles, supervisor, self.wake)
        self.reaper = Reaper(leases, supervisor, lambda: self.promoter.due_in(0.0), clock=clock)
        self.keeper.on_overdue = self.reaper.suspect
        self.cleaner = Cleaner(sweep, supervisor, clock=clock)

    async def start(self) -> None:
        """Register a lease, if there is none yet, and begin to work.

        Raises:
            Unavailable: the database does not answer.
        """
        await self.keeper.start()
        for part in (self.reporter, self.promoter, self.waiting, self.reaper, self.cleaner, self.crews):
            part.start()
        if self.pool.slots:
            self.dispatcher.start()
        self._state = "running"

    def _attempt(self, job: Job) -> Attempt:
        """Return the attempt of this process that a job becomes."""
        handler = self.registry.get(job.task.kind)
        if handler is None:
            raise LookupError(f"a task of kind {job.task.kind} was claimed, which has no handler")
        return Attempt(job, handler, limits_of(job.task, handler), Context(job, self.reporter))

    def _handles(self, kind: str) -> bool:
        if not self.pool.slots and not self.crews.sessions:
            return True  # nothing runs here, so it is for others to say
        here = self.pool.slots > 0 and self.registry.get(kind) is not None
        return here or self.crews.handles(kind)

    def observe(self, events: Sequence[Event]) -> None:
        """Take note of what happened to tasks, in this process or another; a listener of the feed."""
        ready = False
        for event in events:
            task = event.task
            if task.status is Status.NEW:
                ready = ready or self.registry.get(task.kind) is not None
                self.crews.ready(task.kind)
            elif task.status is Status.SCHEDULED:
                self.promoter.due_in(max(0.0, (task.run_at - event.at).total_seconds()))
            elif task.status is Status.RUNNING and task.cancel_requested_at is not None:
                self.cancel(task.id, task.attempt, task.version)
        if ready:
            self.dispatcher.wake()

    def wake(self) -> None:
        """Say that there may be ready tasks."""
        self.dispatcher.wake()
        self.crews.gained()

    def cancel(self, task_id: UUID, attempt: int, version: int | None = None) -> bool:
        """Stop an attempt because its user asked; return whether it is this process's.

        Args:
            version: of the task with that. None: not known; then it is not remembered for an attempt yet to come, and
                who says so says so again.
        """
        if self.pool.cancel(task_id, attempt, version) or self.crews.cancel(task_id, attempt, version):
            return True
        if version is not None:
            self.early.add((task_id, attempt), version)
        return False

    @property
    def slots(self) -> int:
        """How many attempts may run at once; 0 while none can be claimed, for want of handlers or of a lease."""
        able = self._state == "running" and self.keeper.trusted
        return (self.pool.slots if self.registry.kinds else 0) + self.crews.slots if able else 0

    @property
    def busy(self) -> int:
        """How many slots are in use, here and at workers elsewhere."""
        return self.pool.busy + self.crews.busy

    @property
    def refused(self) -> int:
        """How many results were refused, because their attempts were no longer those of who brought them."""
        return self.executor.refused + self.crews.refused

    def health(self) -> PartHealth:
        """Return whether it works, and which kinds wait for want of a handler."""
        fault = self.keeper.fault or self.dispatcher.fault
        if self._state != "running" or fault is not None or not self.keeper.trusted:
            return PartHealth(False, fault or (self._state if self._state != "running" else "no lease"))
        detail = f"{self.busy} of {self.pool.slots + self.crews.slots} slots busy"
        if self.waiting.kinds:
            detail += f"; no handler here for: {self.waiting.told}"
        return PartHealth(True, detail)

    def announce(self, seconds: float) -> None:
        """Tell workers elsewhere that a `drain` is coming, and how long it may take."""
        self.crews.announce(seconds)

    async def drain(self, seconds: float) -> None:
        """Claim no more; let what runs go on for up to `seconds`; then stop it and give its tasks back.

        Returns when all outcomes are stored or can't be. `hurry` cuts the wait short.
        """
        if self._state != "running":
            return
        self._state = "draining"
        now = asyncio.get_running_loop().time
        deadline = now() + seconds
        await self.dispatcher.drain(max(seconds, STORE_WITHIN))
        await self.crews.drain(seconds)
        if not self._hurried and not await self._wait_settled(max(0.0, deadline - now())):
            logger.info("stopping attempts that still run; their tasks are given back")
        self._release()
        if not await self._wait_settled(self._grace + STORE_WITHIN):
            logger.warning("some outcomes could not be stored; their tasks will be taken back")
        self._state = "drained"

    async def _wait_settled(self, seconds: float) -> bool:
        waits = (self.pool.wait_settled(seconds), self.crews.wait_settled(seconds))
        return all(await asyncio.gather(*waits))

    def _release(self) -> None:
        self.pool.release()
        self.crews.release()

    def hurry(self) -> None:
        """Make a `drain` stop what runs at once, now or when it comes."""
        self._hurried = True
        if self._state == "draining":
            self._release()

    async def stop(self) -> None:
        """Drain without waiting, and end all parts and the lease. Safe twice, and before `start`."""
        self.hurry()
        await self.drain(0.0)
        for part in (self.waiting, self.reaper, self.cleaner, self.promoter, self.crews, self.pool, self.reporter):
            await part.stop()
        await self.keeper.stop()
        self._state = "not started"

    def _slot_freed(self) -> None:
        self.dispatcher.slot_freed()

    # The keeper's `Holder`.

    def gained(self) -> None:
        """There is a lease to claim with."""
        self.wake()

    def lost(self, lease: UUID) -> None:
        """Stop what runs under a lost lease."""
        self.pool.lose(lease)
        self.crews.lost(lease)

    def holds(self, lease: UUID) -> bool:
        """Return whether an attempt under this lease has no stored outcome yet."""
        return self.pool.holds(lease) or self.crews.holds(lease)
