"""Workers elsewhere as this process knows them: their sessions on a model of the store, without any connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from taskd.domain.event import LOG_START, Event, EventType
from taskd.domain.model import Status, Task, User
from taskd.domain.outcome import Outcome
from taskd.worker import plan
from taskd.worker.job import Job
from taskd.worker.result import Failed, Returned
from taskd.worker.session import RemoteAttempt, Session
from tests.waiting import eventually
from tests.worker.model import EPOCH, FakeClock, Rig, running

DONE = Returned("1")


def opened(rig: Rig, slots: int = 4, lease: float = 30.0) -> tuple[Session, int]:
    """Return a new session, and its stream."""
    crews = rig.worker.crews
    session = crews.open(User("worker"), ("work",), slots, lease, "elsewhere")
    return session, crews.attach(session, ())


async def fetched(session: Session, number: int = 1) -> list[Task]:
    """Return the next so many tasks that a session is to be told of."""
    found: list[Task] = []

    def all_there() -> bool:
        found.extend(session.fetch().tasks)
        return len(found) >= number

    await eventually(all_there)
    return found


def key_of(task: Task, claim: int = 0) -> tuple[UUID, int, int]:
    return task.id, task.attempt, claim


class Gate:
    """A rig's store whose claims are answered, and outcomes stored, when the test says so."""

    def __init__(self, rig: Rig) -> None:
        self.claimed, self.answered = asyncio.Event(), asyncio.Event()
        self.finishing, self.finished = asyncio.Event(), asyncio.Event()
        self._claim, self._finish = rig.store.claim, rig.store.finish
        rig.store.claim = self.claim  # type: ignore[method-assign]
        rig.store.finish = self.finish  # type: ignore[method-assign]

    async def claim(self, lease: UUID, kinds: Sequence[str], limit: int) -> list[Task]:
        tasks = await self._claim(lease, kinds, limit)
        if tasks:
            self.claimed.set()
            await self.answered.wait()
        return tasks

    def finish(self, outcome: Outcome) -> asyncio.Future[Status | None]:
        return asyncio.ensure_future(self._wait(outcome))

    async def _wait(self, outcome: Outcome) -> Status | None:
        self.finishing.set()
        await self.finished.wait()
        return await self._finish(outcome)


async def test_a_new_stream_takes_the_place_of_the_one_before() -> None:
    rig = Rig()
    async with running(rig):
        session, first = opened(rig)
        session.fetch()
        woken = session.woken
        assert not woken.is_set()
        second = rig.worker.crews.attach(session, ())
        # Whoever writes for the first finds that it is over.
        assert woken.is_set()
        assert (session.is_current(first), session.is_current(second)) == (False, True)
        # The end of the one before is not the end of the session's.
        rig.worker.crews.detach(session, first)
        assert session.attached


async def test_a_task_that_comes_when_the_worker_has_gone_is_given_back() -> None:
    rig = Rig()
    async with running(rig):
        session, stream = opened(rig, slots=1)
        held = rig.store.add()
        await fetched(session)
        session.pool.slots = 2
        lease = rig.worker.keeper.lease
        assert lease is not None
        late = rig.store.add()
        [task] = await rig.store.claim(lease, ["work"], 1)
        session.pool.offer(Job(task, lease))
        rig.worker.crews.detach(session, stream)
        await eventually(lambda: rig.store.status(late) is not Status.RUNNING)
        assert rig.store.tasks[late].attempt == 0
        assert (rig.store.status(held), rig.store.tasks[held].attempt) == (Status.RUNNING, 1)


@pytest.mark.parametrize("closed", [True, False])
async def test_who_leaves_and_breaks_off_may_still_come_back(closed: bool) -> None:
    rig = Rig()
    async with running(rig):
        session, stream = opened(rig)
        task_id = rig.store.add()
        [task] = await fetched(session)
        session.leave()
        rig.worker.crews.detach(session, stream, closed=closed)
        found = rig.worker.crews.resume(session.id, session.user, session.kinds, 4, 30.0)
        if closed:
            assert found is None
            await eventually(lambda: rig.store.tasks[task_id].attempt == 0)
        else:
            assert found is session
            rig.worker.crews.attach(session, [key_of(task)])
            session.result(key_of(task), DONE)
            await eventually(lambda: rig.store.status(task_id) is Status.DONE)


async def test_a_word_that_comes_between_the_verdict_and_its_end_is_acknowledged() -> None:
    rig = Rig()
    async with running(rig):
        session, _ = opened(rig)
        rig.store.add()
        [task] = await fetched(session)
        [attempt] = session.pool._open.values()
        assert isinstance(attempt, RemoteAttempt)
        attempt.settled(True)
        session.result(key_of(task), DONE)
        assert session.fetch().acks == [(key_of(task), False)]


async def test_a_late_word_is_acknowledged_once_and_frees_the_slot() -> None:
    rig = Rig(grace=0.001)
    async with running(rig):
        session, _ = opened(rig, slots=1)
        task_id = rig.store.add(timeout_seconds=0.001, max_attempts=1)
        [task] = await fetched(session)
        assert await session.pool.wait_settled(20)
        assert rig.store.status(task_id) is Status.FAILED
        assert (session.free, rig.worker.busy) == (0, 1)
        session.result(key_of(task), DONE)
        assert session.fetch().acks == [(key_of(task), False)]
        await eventually(lambda: session.free == 1)
        assert await session.pool.wait_settled(0)


async def test_it_is_looked_at_when_its_lease_is_over_and_not_later() -> None:
    clock = FakeClock()
    rig = Rig(clock=clock)
    session = rig.worker.crews.open(User("worker"), ("work",), 1, 30.0, "elsewhere")
    assert (session.look_in, session.is_silent) == (10.0, False)
    clock.now += 25
    assert (session.look_in, session.is_silent) == (5.0, False)
    session.heard()
    assert session.look_in == 10.0
    clock.now += 30
    assert (session.look_in, session.is_silent) == (0.0, True)
    await rig.worker.crews.stop()
    await rig.supervisor.stop()


async def test_the_last_ones_end_during_a_claim_costs_neither_the_lease_nor_the_attempt() -> None:
    rig = Rig()
    gate = Gate(rig)
    async with running(rig):
        lease = rig.worker.keeper.lease
        session, stream = opened(rig)
        task_id = rig.store.add()
        rig.worker.crews.ready("work")
        await gate.claimed.wait()
        rig.worker.crews.detach(session, stream)
        await eventually(lambda: not rig.worker.crews.handles("work"))
        gate.answered.set()
        gate.finished.set()
        await eventually(lambda: rig.store.status(task_id) is not Status.RUNNING)
        assert rig.store.tasks[task_id].attempt == 0
        assert rig.worker.keeper.lease == lease


async def test_what_is_claimed_when_the_server_stops_is_given_back_before_it_ends() -> None:
    rig = Rig()
    gate = Gate(rig)
    async with running(rig):
        opened(rig)
        task_id = rig.store.add()
        rig.worker.crews.ready("work")
        await gate.claimed.wait()
        rig.worker.announce(30)
        draining = asyncio.create_task(rig.worker.drain(30))
        await asyncio.sleep(0)
        gate.answered.set()
        await gate.finishing.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not draining.done()
        gate.finished.set()
        await draining
        assert rig.store.status(task_id) is not Status.RUNNING
        assert rig.store.tasks[task_id].attempt == 0


async def test_a_cancellation_before_the_claims_answer_reaches_whoever_gets_the_task() -> None:
    rig = Rig()
    async with running(rig):
        task_id = rig.store.add(status=Status.SCHEDULED)
        rig.store.tasks[task_id] = replace(rig.store.tasks[task_id], cancel_requested_at=EPOCH)
        assert rig.worker.cancel(task_id, 1, 4) is False
        for _ in range(3):
            opened(rig)
        await rig.worker.promoter.run_once()
        await eventually(lambda: rig.store.status(task_id) is Status.CANCELLED)
        assert all(not session.fetch().tasks for session in rig.worker.crews.sessions)


async def test_a_cancellation_that_the_log_tells_of_is_said_to_the_worker() -> None:
    rig = Rig()
    async with running(rig):
        session, _ = opened(rig)
        task_id = rig.store.add()
        [task] = await fetched(session)
        asked = replace(rig.store.tasks[task_id], version=3, cancel_requested_at=EPOCH)
        rig.worker.observe([Event(LOG_START, EventType.UPDATED, asked, EPOCH)])
        assert session.fetch().cancels == {key_of(task, 1): plan.Stop.CANCEL}
        session.result(key_of(task), DONE)
        await eventually(lambda: rig.store.status(task_id) is Status.CANCELLED)


async def test_one_claim_takes_no_more_than_its_bound() -> None:
    rig = Rig()
    async with running(rig):
        for _ in range(plan.MOST_CLAIMED + 100):
            rig.store.add()
        session, _ = opened(rig, slots=1000)
        assert len(await fetched(session, plan.MOST_CLAIMED + 100)) == plan.MOST_CLAIMED + 100
        assert max(rig.store.claims) == plan.MOST_CLAIMED


async def test_the_attempts_of_a_worker_that_is_gone_are_spent() -> None:
    clock = FakeClock()
    rig = Rig(clock=clock)
    async with running(rig):
        session, stream = opened(rig, lease=30.0)
        again, last = rig.store.add(), rig.store.add(max_attempts=1)
        await fetched(session, 2)
        rig.worker.crews.detach(session, stream)
        clock.now += 29.9
        await rig.worker.crews.run_once()
        assert session.pool.busy == 2
        clock.now += 0.1
        await rig.worker.keeper.run_once()
        await rig.worker.crews.run_once()
        await eventually(lambda: rig.store.status(last) is Status.FAILED)
        await eventually(lambda: rig.store.status(again) is not Status.RUNNING)
        ended = {outcome.task_id: (outcome.error_type, outcome.delay) for outcome, _ in rig.store.outcomes}
        assert ended == {again: ("WorkerLost", 0.0), last: ("WorkerLost", 0.0)}
        assert rig.worker.crews.resume(session.id, session.user, session.kinds, 4, 30.0) is None


async def test_a_final_failure_is_not_tried_again() -> None:
    rig = Rig()
    async with running(rig):
        session, _ = opened(rig)
        task_id = rig.store.add()
        [task] = await fetched(session)
        session.result(key_of(task), Failed("Oops", "no luck", final=True))
        await eventually(lambda: rig.store.status(task_id) is Status.FAILED)
        assert session.fetch().acks == [(key_of(task, 1), True)]
