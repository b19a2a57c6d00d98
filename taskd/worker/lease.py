"""The lease: how a process proves that it lives, and how it knows that others still believe it.

A process registers a lease, a random UUID, and claims tasks under it. It renews the lease every `RENEW_EVERY` seconds;
by the database's clock the lease is dead `EXPIRES` seconds after the last renewal, and whoever notices takes back
the tasks.

The two clocks are never compared. The process trusts its lease for `FENCE` seconds from the moment when it *asked*
for the last renewal that succeeded, by its own clock: the database can only have dated it later. After that it claims
nothing, and `PATIENCE` later it cancels what runs, well before anybody else may start it again. What still comes
late is refused by the database, by lease and attempt.

A lease is given up for three reasons: it could not be renewed (fence), it is gone (somebody took it for dead), or a
claim under it was not answered (`retire`): that claim may have taken tasks which this process does not know, and while
the lease lives nobody else would ever run them. A retired lease is renewed until its known attempts have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID, uuid4

from taskd.clock import Clock, monotonic
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.worker.ports import Leases

logger = logging.getLogger("taskd.worker")

RENEW_EVERY = 2.0
EXPIRES = 6.0
FENCE = 3.0
PATIENCE = 0.5
"""Seconds from the fence to the cancelling: after a stall of the event loop, a renewal that is due gets its turn."""

END_WITHIN = 2.0
"""Seconds that the end of a lease may take when the process stops; without it the lease just expires."""


class Holder(Protocol):
    """What runs under leases."""

    def gained(self) -> None:
        """There is a new lease to claim with."""

    def lost(self, lease: UUID) -> None:
        """A lease is lost: stop what runs under it, store nothing of it."""

    def cancel(self, task_id: UUID, attempt: int) -> object:
        """The cancellation of an attempt was asked for."""

    def holds(self, lease: UUID) -> bool:
        """Whether something under this lease has not come to its end."""


class NoHolder:
    """For a process that runs nothing, and only wants to be known."""

    def gained(self) -> None: ...

    def lost(self, lease: UUID) -> None: ...

    def cancel(self, task_id: UUID, attempt: int) -> None: ...

    def holds(self, lease: UUID) -> bool:
        return False


@dataclass(slots=True, eq=False, repr=False)
class _Held:
    """A lease, and when its last renewal was asked for."""

    lease: UUID
    asked_at: float


class LeaseKeeper:
    """Keeps one lease alive, and gets another when it is lost.

    Args:
        leases: the store's.
        supervisor: owns the loops.
        role, name: for who looks into the table of leases.
        holder: what runs under the lease.
        clock: monotonic seconds.
        new_id: makes leases.
    """

    def __init__(
        self,
        leases: Leases,
        supervisor: Supervisor,
        *,
        role: str,
        name: str,
        holder: Holder | None = None,
        clock: Clock = monotonic,
        new_id: Callable[[], UUID] = uuid4,
    ) -> None:
        self.others = 0
        """Other processes that were registered at the last renewal."""
        self.on_others: Callable[[int], None] = _nobody_asked
        """Told of their number at each renewal."""
        self.on_overdue: Callable[[bool], None] = _nobody_asked
        """Told at each renewal whether one of them has not renewed in time."""
        self._leases = leases
        self._role = role
        self._name = name
        self._holder: Holder = holder or NoHolder()
        self._clock = clock
        self._new_id = new_id
        self._current: _Held | None = None
        self._retired: list[_Held] = []
        self._to_end: list[UUID] = []
        self._candidate: UUID | None = None
        self._renewing = Periodic("lease", self.run_once, supervisor, Backoff(0.1, 1.0))
        self._fencing = Periodic("fence", self.fence, supervisor, Backoff(0.1, 1.0))

    @property
    def lease(self) -> UUID | None:
        """The lease to claim with, or None while there is none."""
        return None if self._current is None else self._current.lease

    @property
    def trusted(self) -> bool:
        """Whether there is a lease to claim with, and it is surely alive."""
        return self._current is not None and self._is_trusted(self._current)

    @property
    def fault(self) -> str | None:
        """Why the lease can't be renewed now, or None."""
        return self._renewing.fault

    def trusts(self, lease: UUID) -> bool:
        """Return whether a lease, also a retired one, is surely alive."""
        return any(held.lease == lease and self._is_trusted(held) for held in self._all())

    async def start(self) -> None:
        """Register, unless it has been, and keep the lease from then on.

        Raises:
            Unavailable: the database does not answer.
        """
        if self._current is None:
            await self._register()
        self._renewing.start()
        self._fencing.start()

    def look(self) -> None:
        """Renew now: there seems to be a process that was not there at the last renewal."""
        self._renewing.wake()

    def retire(self, lease: UUID) -> None:
        """Claim no more under this lease, and end it when nothing runs under it any more."""
        if self._current is None or self._current.lease != lease:
            return
        logger.warning("a claim was not answered: going on under a new lease")
        self._retired.append(self._current)
        self._current = None
        self._renewing.wake()

    async def run_once(self) -> float:
        """Renew the leases, or get a new one; return the seconds until the next renewal."""
        for held in self._all():
            await self._renew(held)
        await self._end_unused()
        if self._current is None:
            await self._register()
        return RENEW_EVERY

    async def fence(self) -> float | None:
        """Give up the leases that could not be renewed; return the seconds until that may be due again."""
        now = self._clock()
        for held in self._all():
            if now >= held.asked_at + FENCE + PATIENCE:
                self._lose(held, f"it could not be renewed for {now - held.asked_at:.1f} s")
        left = [held.asked_at + FENCE + PATIENCE - now for held in self._all()]
        return min(left, default=None)

    async def stop(self) -> None:
        """Keep no lease any more, and end those there are. Safe twice, and before `start`."""
        await self._renewing.stop()
        await self._fencing.stop()
        leases = [*(held.lease for held in self._all()), *self._to_end]
        if self._candidate is not None:
            leases.append(self._candidate)
        self._current, self._retired, self._to_end, self._candidate = None, [], [], None
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(END_WITHIN):
                for lease in leases:
                    await self._leases.end(lease)

    def _all(self) -> list[_Held]:
        return [*([] if self._current is None else [self._current]), *self._retired]

    def _is_trusted(self, held: _Held) -> bool:
        return self._clock() < held.asked_at + FENCE

    async def _register(self) -> None:
        # If the answer is lost, the lease may exist; it is the same one that is registered next time.
        self._candidate = self._candidate or self._new_id()
        held = _Held(self._candidate, self._clock())
        async with _answered():
            await self._leases.register(held.lease, self._role, self._name)
        self._candidate, self._current = None, held
        # Others may not know this process, or no longer: the first renewal counts them anew, and so tells them.
        self.on_others(0)
        self._renewing.wake()
        self._fencing.wake()
        self._holder.gained()

    async def _renew(self, held: _Held) -> None:
        asked_at = self._clock()
        async with _answered():
            renewal = await self._leases.renew(held.lease)
        if not any(held is kept for kept in self._all()):
            return  # given up meanwhile
        if not renewal.alive:
            self._lose(held, "it is gone")
            return
        had_trust = self._is_trusted(held)
        held.asked_at = asked_at
        if held is self._current:
            if not had_trust:
                # Others may have taken it for dead meanwhile.
                self.on_others(0)
            self.others = renewal.others
            self.on_others(renewal.others)
            self.on_overdue(renewal.overdue)
            if not had_trust:
                self._holder.gained()
        for task_id, attempt in renewal.cancelled:
            self._holder.cancel(task_id, attempt)

    async def _end_unused(self) -> None:
        for held in tuple(self._retired):
            if not self._holder.holds(held.lease):
                self._retired.remove(held)
                self._to_end.append(held.lease)
        while self._to_end:
            async with _answered():
                await self._leases.end(self._to_end[0])
            del self._to_end[0]

    def _lose(self, held: _Held, why: str) -> None:
        logger.error("the lease is lost: %s; what runs under it is stopped", why)
        if held is self._current:
            self._current = None
        else:
            self._retired.remove(held)
        self._to_end.append(held.lease)
        self._holder.lost(held.lease)
        self._renewing.wake()


def _nobody_asked(_: int | bool) -> None:
    """Stands for whoever wants to know of other processes, when nobody does."""


@contextlib.asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    """A database that does not answer in the time that a lease is trusted is away."""
    try:
        async with asyncio.timeout(FENCE):
            yield
    except TimeoutError:
        raise Unavailable("the database does not answer") from None
