"""The pool alone: what ends at once, what does not, and what is left when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from taskd.domain.model import Status
from taskd.domain.outcome import Ending, Outcome
from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import Attempt
from taskd.worker.context import Context
from taskd.worker.execute import Answer, Executor
from taskd.worker.job import Job
from taskd.worker.plan import limits_of
from taskd.worker.pool import Early, Pool
from taskd.worker.registry import Registry
from taskd.worker.reporter import Reporter
from tests.waiting import eventually
from tests.worker.model import make_task


class Store:
    """Answers when the test does."""

    def __init__(self) -> None:
        self.asked: list[tuple[Outcome, Answer]] = []

    def finish(self, outcome: Outcome) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        self.asked.append((outcome, answer))
        return answer


class World:
    """A pool of four slots, for kinds that end at once (`now`) and when the test lets them (`later`)."""

    def __init__(self) -> None:
        self.store: Any = Store()
        self.supervisor = Supervisor()
        self.lease = uuid4()
        self.registry = Registry()
        self.let_go = asyncio.Event()
        self.freed = 0
        self.executor = Executor(self.store, self.supervisor, lambda lease: lease == self.lease, lambda _: None)
        self.reporter = Reporter(self.store, self.supervisor)
        self.pool = Pool(self._make, self.executor, self.reporter, self.supervisor, 4, self._free, Early())

        async def now(task: Any, ctx: Any) -> str:
            return "now"

        async def later(task: Any, ctx: Any) -> str:
            await self.let_go.wait()
            return "later"

        self.registry.add("now", now)
        self.registry.add("later", later)

    def _make(self, job: Job) -> Attempt:
        handler = self.registry.get(job.task.kind)
        assert handler is not None
        return Attempt(job, handler, limits_of(job.task, handler), Context(job, self.reporter))

    def _free(self) -> None:
        self.freed += 1

    def offer(self, *kinds: str) -> list[Job]:
        jobs = [Job(make_task(kind, status=Status.RUNNING, attempt=1), self.lease) for kind in kinds]
        for job in jobs:
            self.pool.offer(job)
        return jobs

    async def asks(self, number: int) -> list[Answer]:
        await eventually(lambda: len(self.store.asked) == number)
        return [answer for _, answer in self.store.asked]

    def tasks(self) -> list[str]:
        return sorted(task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    yield found
    await found.pool.stop()
    await found.supervisor.stop()


async def test_what_ends_at_once_needs_no_task_but_its_handlers(world: World) -> None:
    world.offer("now", "now", "now")
    answers = await world.asks(3)
    assert world.tasks() == ["slots"]
    assert (world.pool.busy, world.freed) == (3, 0), "a slot is free when its outcome is stored"
    for answer in answers:
        answer.set_result(Status.DONE)
    assert await world.pool.wait_settled(None)
    assert (world.pool.busy, world.freed) == (0, 3)


async def test_what_does_not_holds_up_nobody(world: World) -> None:
    world.offer("later", "now")
    [answer] = await world.asks(1)
    answer.set_result(Status.DONE)
    await eventually(lambda: world.pool.busy == 1)
    world.offer("now")
    await world.asks(2)
    world.let_go.set()
    for answer in (await world.asks(3))[1:]:
        answer.set_result(Status.DONE)
    assert await world.pool.wait_settled(None)
    results = [outcome.result_json for outcome, _ in world.store.asked]
    assert results == ['"now"', '"now"', '"later"']


async def test_an_answer_that_was_lost_is_asked_for_again(world: World) -> None:
    world.offer("now")
    [answer] = await world.asks(1)
    answer.set_exception(Unavailable("the answer is lost"))
    again = (await world.asks(2))[1]
    again.set_result(None)
    assert await world.pool.wait_settled(None)
    assert world.executor.refused == 0, "it was stored by the first try"
    assert world.store.asked[0][0] == world.store.asked[1][0]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_being_stored_when_it_stops_is_stored(world: World, fails: bool) -> None:
    world.offer("now", "later")
    [answer] = await world.asks(1)
    await world.pool.stop()
    assert (world.pool.busy, world.freed, await world.pool.wait_settled(0)) == (0, 2, True)
    assert not answer.done()
    assert world.tasks() == ["outcome"]
    if fails:
        answer.set_exception(Unavailable("the answer is lost"))
        # Its lease is lost, as far as anybody here knows.
    else:
        answer.set_result(Status.DONE)
    await eventually(lambda: not world.tasks())
    assert len(world.store.asked) == 1


async def test_what_was_offered_just_now_is_not_begun_when_it_stops(world: World) -> None:
    world.offer("now", "later")
    await world.pool.stop()
    assert (world.pool.busy, world.tasks(), world.store.asked) == (0, [], [])
    await world.pool.stop()
    assert world.freed == 2


async def test_a_lease_that_is_not_trusted_begins_nothing(world: World) -> None:
    world.offer("now")
    world.lease = uuid4()
    [answer] = await world.asks(1)
    assert world.store.asked[0][0].ending is Ending.RELEASED
    answer.set_result(Status.SCHEDULED)
    assert await world.pool.wait_settled(None)


async def test_an_error_of_the_pools_own_ends_the_process_and_leaves_no_other_attempt(world: World) -> None:
    judge = world.executor.judge
    broken, *rest = world.offer("now", "now", "now")

    def judge_all_but_one(attempt: Any) -> Outcome | None:
        if attempt.job == broken:
            raise RuntimeError("broken")
        return judge(attempt)

    world.executor.judge = judge_all_but_one  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await world.supervisor.failed
    for answer in await world.asks(2):
        answer.set_result(Status.DONE)
    assert await world.pool.wait_settled(None)
    assert (world.pool.busy, world.freed) == (0, 3)
    assert {outcome.task_id for outcome, _ in world.store.asked} == {job.task.id for job in rest}


@pytest.mark.parametrize("where", ["begin", "stored"])
async def test_nor_does_one_at_the_beginning_or_behind_the_answer(
    world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(world.executor, where)
    calls = 0

    def once(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("broken")
        right(*args)

    monkeypatch.setattr(world.executor, where, once)
    world.offer("now", "now")
    for answer in await world.asks(2):
        answer.set_result(Status.DONE)
    with pytest.raises(RuntimeError):
        await world.supervisor.failed
    assert await world.pool.wait_settled(None)
    assert (world.pool.busy, world.freed) == (0, 2)
    endings = {Ending.RELEASED} if where == "begin" else {Ending.DONE}
    assert {outcome.ending for outcome, _ in world.store.asked} == endings
