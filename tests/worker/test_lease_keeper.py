"""Leases: whom a process may believe, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.store.leases import EXPIRES as STORE_EXPIRES
from taskd.worker import lease
from taskd.worker.lease import EXPIRES, FENCE, PATIENCE, RENEW_EVERY, LeaseKeeper
from tests.worker.model import FakeClock, Memory


class Held:
    """Notes what a keeper says."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.running: set[UUID] = set()

    def gained(self) -> None:
        self.said.append("gained")

    def lost(self, lost: UUID) -> None:
        self.said.append(("lost", lost))

    def cancel(self, task_id: UUID, attempt: int) -> None:
        self.said.append(("cancel", task_id, attempt))

    def holds(self, held: UUID) -> bool:
        return held in self.running


class Kept:
    """A keeper that is not run by a loop."""

    def __init__(self) -> None:
        self.store, self.clock, self.holder = Memory(), FakeClock(), Held()
        self.keeper = LeaseKeeper(
            self.store, Supervisor(), role="worker", name="test", holder=self.holder, clock=self.clock
        )


async def test_a_lease_is_trusted_from_when_it_was_asked_for_until_the_fence() -> None:
    kept = Kept()
    assert not kept.keeper.trusted
    assert await kept.keeper.run_once() == RENEW_EVERY
    first = kept.keeper.lease
    assert first is not None
    assert kept.keeper.trusts(first)
    kept.clock.now += FENCE - 0.001
    assert kept.keeper.trusted
    kept.clock.now += 0.001
    assert not kept.keeper.trusted
    await kept.keeper.run_once()
    assert (kept.keeper.trusted, kept.keeper.lease) == (True, first)
    assert kept.holder.said == ["gained", "gained"]


async def test_trust_counts_from_the_question_and_not_from_the_answer() -> None:
    kept = Kept()
    await kept.keeper.run_once()
    renew = kept.store.renew

    async def slow(asked: UUID) -> Any:
        kept.clock.now += FENCE
        return await renew(asked)

    kept.store.renew = slow  # type: ignore[method-assign]
    await kept.keeper.run_once()
    assert not kept.keeper.trusted


async def test_the_fence_gives_up_a_lease_that_was_not_renewed_and_another_one_follows() -> None:
    kept = Kept()
    await kept.keeper.run_once()
    first = kept.keeper.lease
    assert await kept.keeper.fence() == FENCE + PATIENCE
    kept.store.away = True
    kept.clock.now += FENCE
    assert await kept.keeper.fence() == pytest.approx(PATIENCE)
    with pytest.raises(Unavailable):
        await kept.keeper.run_once()
    kept.clock.now += PATIENCE
    assert await kept.keeper.fence() is None
    assert kept.holder.said == ["gained", ("lost", first)]
    for _ in range(5):
        with pytest.raises(Unavailable):
            await kept.keeper.run_once()
    kept.store.away = False
    await kept.keeper.run_once()
    assert kept.store.leases == {kept.keeper.lease}
    assert kept.keeper.lease not in (None, first)


async def test_a_lease_that_was_taken_for_dead_is_replaced_at_once() -> None:
    kept = Kept()
    await kept.keeper.run_once()
    first = kept.keeper.lease
    kept.store.leases.clear()
    await kept.keeper.run_once()
    assert kept.holder.said == ["gained", ("lost", first), "gained"]
    assert kept.store.leases == {kept.keeper.lease}


async def test_a_retired_lease_lives_until_its_attempts_have_ended() -> None:
    kept = Kept()
    await kept.keeper.run_once()
    first = kept.keeper.lease
    assert first is not None
    kept.holder.running.add(first)
    kept.keeper.retire(first)
    kept.keeper.retire(first)
    assert kept.keeper.lease is None
    assert kept.keeper.trusts(first)
    await kept.keeper.run_once()
    assert kept.store.leases == {first, kept.keeper.lease}
    kept.store.leases.discard(first)
    await kept.keeper.run_once()
    assert kept.holder.said == ["gained", "gained", ("lost", first)]
    kept.holder.running.clear()
    await kept.keeper.run_once()
    assert kept.store.leases == {kept.keeper.lease}


async def test_a_database_that_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    monkeypatch.setattr(lease, "FENCE", 0.001)

    async def never(*given: object) -> None:
        await asyncio.Event().wait()

    kept.store.register = never  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="does not answer"):
        await kept.keeper.start()
    await kept.keeper.stop()


async def test_started_twice_it_registers_once() -> None:
    kept = Kept()
    await kept.keeper.start()
    lease = kept.keeper.lease
    await kept.keeper.start()
    assert kept.store.leases == {lease} == {kept.keeper.lease}
    await kept.keeper.stop()


async def test_a_keeper_without_a_holder_only_is_known() -> None:
    store, clock, supervisor = Memory(), FakeClock(), Supervisor()
    store.leases.add(uuid4())
    keeper = LeaseKeeper(store, supervisor, role="api", name="test", clock=clock)
    await keeper.start()
    await keeper.run_once()
    assert (keeper.others, keeper.fault) == (1, None)
    first = keeper.lease
    assert first is not None
    keeper.retire(first)
    await keeper.run_once()
    clock.now += FENCE + PATIENCE
    await keeper.fence()
    assert keeper.lease is None
    await keeper.stop()
    await supervisor.stop()
    assert len(store.leases) == 1


def test_the_times_of_a_lease_agree_with_the_store() -> None:
    assert EXPIRES == STORE_EXPIRES
    assert RENEW_EVERY < FENCE < FENCE + PATIENCE < EXPIRES


async def test_a_process_that_comes_back_counts_the_others_anew_and_so_tells_them() -> None:
    kept, told = Kept(), list[int]()
    kept.keeper.on_others = told.append
    kept.store.leases.add(uuid4())
    await kept.keeper.run_once()
    assert told == [0], "registered, and not known to others yet"
    for _ in range(2):
        await kept.keeper.run_once()
    assert told == [0, 1, 1]
    # So long away that others may have taken it for dead.
    kept.clock.now += FENCE
    await kept.keeper.run_once()
    assert told == [0, 1, 1, 0, 1]
