"""Attempts that are stopped, given back or lost; outcomes that meet an outage."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from taskd.domain.event import LOG_START, Event, EventType
from taskd.domain.model import Status
from taskd.domain.outcome import Ending
from taskd.domain.retry import RetryPolicy
from taskd.worker.plan import Stop
from tests.waiting import eventually
from tests.worker.model import EPOCH, Rig, running

NOW = RetryPolicy(first=0.001, cap=0.001)


def endings(rig: Rig) -> list[Ending]:
    return [outcome.ending for outcome, accepted in rig.store.outcomes if accepted]


def _waiting_handler(in_thread: bool, started: threading.Event) -> Any:
    async def work(task: Any, ctx: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    def plain(task: Any, ctx: Any) -> None:
        started.set()
        while not ctx.cancelled:
            ctx.wait_cancelled(60)

    return plain if in_thread else work


@pytest.mark.parametrize("in_thread", [False, True])
async def test_the_users_cancellation_reaches_the_handler(in_thread: bool) -> None:
    rig = Rig()
    started = threading.Event()
    rig.registry.add("work", _waiting_handler(in_thread, started))
    task_id = rig.store.add()
    async with running(rig):
        await eventually(started.is_set)
        task = replace(rig.store.tasks[task_id], cancel_requested_at=EPOCH)
        rig.worker.observe([Event(LOG_START, EventType.UPDATED, task, EPOCH)])
        await eventually(lambda: rig.store.status(task_id) is Status.CANCELLED)
        assert rig.worker.cancel(task_id, 1) is False
    assert endings(rig) == [Ending.CANCELLED]


async def test_a_cancellation_is_learnt_at_the_next_renewal_too() -> None:
    rig = Rig()
    started = threading.Event()
    rig.registry.add("work", _waiting_handler(False, started))
    task_id = rig.store.add()
    async with running(rig):
        await eventually(started.is_set)
        rig.store.tasks[task_id] = replace(rig.store.tasks[task_id], cancel_requested_at=EPOCH)
        await rig.worker.keeper.run_once()
        await eventually(lambda: rig.store.status(task_id) is Status.CANCELLED)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_cancellation_that_comes_before_the_claims_answer_counts(in_thread: bool) -> None:
    rig = Rig()
    started = threading.Event()
    rig.registry.add("work", _waiting_handler(in_thread, started))
    task_id = rig.store.add()
    assert rig.worker.cancel(task_id, 1, 3) is False
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.CANCELLED)
        # What never began needs no slot.
        await eventually(lambda: rig.worker.busy == 0)
    assert not started.is_set()


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancellation_of_an_earlier_run_is_not_the_retrys(late: bool) -> None:
    rig = Rig()
    started, let_go = threading.Event(), asyncio.Event()

    async def work(task: Any, ctx: Any) -> None:
        started.set()
        await let_go.wait()

    rig.registry.add("work", work)
    # It ran elsewhere, was cancelled there, and its user had it retried: its first attempt once more.
    task_id = rig.store.add(version=5)
    asked = replace(rig.store.tasks[task_id], status=Status.RUNNING, attempt=1, version=3, cancel_requested_at=EPOCH)
    told = [Event(LOG_START, EventType.UPDATED, asked, EPOCH)]
    if not late:
        rig.worker.observe(told)
    async with running(rig):
        await eventually(started.is_set)
        rig.worker.observe(told)
        let_go.set()
        await eventually(lambda: rig.store.tasks[task_id].is_final)
    assert rig.store.status(task_id) is Status.DONE


async def test_cancellations_of_other_processes_do_not_pile_up() -> None:
    rig = Rig()
    for _ in range(3000):
        rig.worker.cancel(uuid4(), 1, 3)
    assert len(rig.worker.early) == 1000


async def test_a_handler_that_ignores_its_cancellation_does_not_hold_the_pool(caplog: Any) -> None:
    rig = Rig(slots=1, grace=0.001)
    let_go = asyncio.Event()
    started = asyncio.Event()

    async def stubborn(task: Any, ctx: Any) -> None:
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    async def work(task: Any, ctx: Any) -> None: ...

    rig.registry.add("stubborn", stubborn)
    rig.registry.add("work", work)
    first = rig.store.add("stubborn")
    async with running(rig):
        await started.wait()
        rig.worker.cancel(first, 1)
        second = rig.store.add("work")
        await eventually(lambda: rig.store.status(second) is Status.DONE)
        assert rig.store.status(first) is Status.CANCELLED
        assert rig.worker.executor.left_behind == 1
        let_go.set()
    assert "ignores its cancellation" in caplog.text


async def test_a_thread_keeps_its_slot_until_it_ends_but_its_outcome_is_stored() -> None:
    rig = Rig(slots=1, grace=0.001)
    started, let_go = threading.Event(), threading.Event()

    def stubborn(task: Any, ctx: Any) -> None:
        started.set()
        let_go.wait()

    async def work(task: Any, ctx: Any) -> None: ...

    rig.registry.add("stubborn", stubborn)
    rig.registry.add("work", work)
    first = rig.store.add("stubborn")
    async with running(rig):
        try:
            await eventually(started.is_set)
            rig.worker.cancel(first, 1)
            second = rig.store.add("work")
            await eventually(lambda: rig.store.status(first) is Status.CANCELLED)
            await rig.worker.dispatcher.run_once()
            assert rig.worker.pool.busy == 1
            assert rig.store.status(second) is Status.NEW
        finally:
            let_go.set()
        await eventually(lambda: rig.store.status(second) is Status.DONE)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_drain_gives_back_without_spending_the_attempt(in_thread: bool) -> None:
    rig = Rig()
    started = threading.Event()
    rig.registry.add("work", _waiting_handler(in_thread, started))
    task_id = rig.store.add()
    async with running(rig):
        await eventually(started.is_set)
        await rig.worker.drain(0.01)
        task = rig.store.tasks[task_id]
        assert task.status in (Status.SCHEDULED, Status.NEW)
        assert (task.attempt, task.error) == (0, None)
        assert not rig.worker.health().ok
        rig.store.add()
        rig.worker.wake()
        before = len(rig.store.claims)
        assert await rig.worker.dispatcher.run_once() > 0
        assert len(rig.store.claims) == before


async def test_a_drain_lets_handlers_end_in_the_time_there_is() -> None:
    rig = Rig()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work(task: Any, ctx: Any) -> str:
        started.set()
        await may_end.wait()
        return "ended"

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await started.wait()
        draining = asyncio.create_task(rig.worker.drain(3600))
        await eventually(lambda: rig.worker.health().detail == "draining")
        may_end.set()
        await draining
        assert rig.store.tasks[task_id].result == "ended"


async def test_hurry_cuts_the_drain_short() -> None:
    rig = Rig()
    started = threading.Event()
    rig.registry.add("work", _waiting_handler(False, started))
    task_id = rig.store.add()
    async with running(rig):
        await eventually(started.is_set)
        draining = asyncio.create_task(rig.worker.drain(3600))
        await eventually(lambda: rig.worker.health().detail == "draining")
        rig.worker.hurry()
        await draining
        assert rig.store.tasks[task_id].attempt == 0


async def test_a_lost_lease_stops_its_handlers_and_their_results_are_refused(caplog: Any) -> None:
    rig = Rig()
    started = threading.Event()
    stopped: list[Any] = []

    async def work(task: Any, ctx: Any) -> None:
        if ctx.attempt == 1:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(task.id)

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await eventually(started.is_set)
        old = rig.worker.keeper.lease
        rig.store.leases.clear()
        await rig.worker.keeper.run_once()
        assert rig.worker.keeper.lease not in (None, old)
        await eventually(lambda: stopped == [task_id])
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    assert [(outcome.attempt, accepted) for outcome, accepted in rig.store.outcomes] == [(2, True)]
    assert "its lease is lost" in caplog.text


async def test_a_late_result_is_refused_counted_and_logged(caplog: Any) -> None:
    rig = Rig()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work(task: Any, ctx: Any) -> int:
        if ctx.attempt == 1:
            started.set()
            await may_end.wait()
        return int(ctx.attempt)

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await started.wait()
        # Taken back while this process believes in its lease.
        rig.store.holders.clear()
        rig.store._put(rig.store.tasks[task_id], status=Status.NEW)
        may_end.set()
        await eventually(lambda: rig.worker.executor.refused == 1)
        rig.worker.wake()
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    assert rig.store.tasks[task_id].result == 2
    assert "was refused" in caplog.text


async def test_an_outcome_outlives_an_outage_of_the_database(caplog: Any) -> None:
    rig = Rig()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work(task: Any, ctx: Any) -> str:
        started.set()
        await may_end.wait()
        await ctx.progress(0.5)
        return "kept"

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await started.wait()
        rig.store.away = True
        may_end.set()
        await eventually(lambda: "storing its outcome again" in caplog.text)
        assert rig.store.status(task_id) is Status.RUNNING
        rig.store.away = False
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    assert rig.store.tasks[task_id].result == "kept"
    assert rig.worker.executor.refused == 0


async def test_an_outcome_whose_answer_was_lost_is_stored_once_and_not_called_refused() -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> None: ...

    rig.registry.add("work", work)
    rig.store.lose_finish_answers = 1
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: len(rig.store.outcomes) == 2)
        await eventually(lambda: rig.worker.pool.busy == 0)
    assert rig.store.status(task_id) is Status.DONE
    assert endings(rig) == [Ending.DONE]
    assert rig.worker.executor.refused == 0


async def test_an_outage_longer_than_the_lease_gives_the_outcome_up(caplog: Any) -> None:
    rig = Rig()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work(task: Any, ctx: Any) -> None:
        started.set()
        await may_end.wait()

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await started.wait()
        lease = rig.worker.keeper.lease
        assert lease is not None
        rig.store.away = True
        may_end.set()
        await eventually(lambda: "storing its outcome again" in caplog.text)
        rig.worker.lost(lease)
        await eventually(lambda: rig.worker.pool.busy == 0)
        assert rig.store.status(task_id) is Status.RUNNING
        assert rig.store.outcomes == []


async def test_tasks_of_a_claim_whose_answer_was_lost_are_taken_back() -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> None: ...

    rig.registry.add("work", work)
    rig.store.lose_claim_answers = 1
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    assert rig.store.tasks[task_id].attempt == 2


async def test_stop_is_safe_twice_and_before_start() -> None:
    rig = Rig()
    await rig.worker.stop()
    await rig.worker.stop()
    assert rig.worker.health().ok is False
    assert Stop.LOST > Stop.CANCEL > Stop.TIMEOUT > Stop.RELEASE
