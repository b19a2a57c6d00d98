"""A worker on a model of the store: what runs, what is stored, what is given back."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from typing import Any

import pytest

from taskd.domain.model import Status
from taskd.domain.outcome import Ending
from taskd.domain.retry import Retry, RetryPolicy
from taskd.worker.plan import MOST_CLAIMED
from tests.waiting import eventually
from tests.worker.model import Rig, running

NOW = RetryPolicy(first=0.001, cap=0.001)


def endings(rig: Rig) -> list[Ending]:
    return [outcome.ending for outcome, accepted in rig.store.outcomes if accepted]


async def test_the_next_claim_is_under_way_before_the_tasks_of_the_last_one_have_their_turn() -> None:
    rig = Rig(slots=2 * MOST_CLAIMED)
    claim, seen = rig.store.claim, []

    async def slow(*args: Any) -> Any:
        claimed = await claim(*args)
        # As long as a database takes: until somebody else had a turn.
        await asyncio.sleep(0)
        return claimed

    async def work(task: Any, ctx: Any) -> None:
        seen.append(len(rig.store.claims))

    rig.store.claim = slow  # type: ignore[method-assign]
    rig.registry.add("work", work)
    for _ in range(MOST_CLAIMED + 1):
        rig.store.add()
    async with running(rig):
        await eventually(lambda: len(seen) == MOST_CLAIMED + 1)
    assert seen[0] >= 2


async def test_a_fault_is_over_with_the_first_claim_that_goes_well() -> None:
    rig = Rig(slots=2)
    claim, faults, number_of = rig.store.claim, [], {}

    async def slow(*args: Any) -> Any:
        faults.append(rig.worker.dispatcher.fault)
        if len(faults) == 2:
            rig.store.lose_claim_answers = 1
        claimed = await claim(*args)
        # Until what waited for this claim has ended: there is always a free slot, and more to be claimed.
        await eventually(lambda: rig.worker.pool.free == 2)
        number_of.update({task.id: len(faults) for task in claimed})
        return claimed

    async def work(task: Any, ctx: Any) -> None:
        if task.payload["number"]:
            await eventually(lambda: len(faults) > max(number_of[task.id], 2))

    rig.store.claim = slow  # type: ignore[method-assign]
    rig.registry.add("work", work)
    for number in range(200):
        rig.store.add(payload={"number": number})
    async with running(rig):
        await eventually(lambda: len(faults) > 20)
    assert faults[2] is not None
    assert faults[3:20] == [None] * 17


async def test_a_task_is_processed() -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> Any:
        await ctx.progress(0.5, "half way")
        return {"got": task.payload["n"], "attempt": ctx.attempt}

    rig.registry.add("work", work)
    task_id = rig.store.add(payload={"n": 7})
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    task = rig.store.tasks[task_id]
    assert task.result == {"got": 7, "attempt": 1}
    assert (task.progress, task.progress_note) == (0.5, "half way")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_no_more_than_the_slots_run_at_once(in_thread: bool) -> None:
    rig = Rig(slots=3)
    now: set[object] = set()
    most = 0
    guard = threading.Lock()

    def enter(one: object) -> None:
        nonlocal most
        with guard:
            now.add(one)
            most = max(most, len(now))

    async def work(task: Any, ctx: Any) -> None:
        enter(task.id)
        for _ in range(5):
            await asyncio.sleep(0)
        now.remove(task.id)

    def plain(task: Any, ctx: Any) -> None:
        enter(task.id)
        ctx.wait_cancelled(0.001)
        with guard:
            now.remove(task.id)

    rig.registry.add("work", plain if in_thread else work)
    for _ in range(60):
        rig.store.add()
    async with running(rig):
        await eventually(lambda: endings(rig) == [Ending.DONE] * 60)
    assert most == 3
    assert max(rig.store.claims) <= 3


async def test_errors_are_tried_again_and_then_fail(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> None:
        raise KeyError("no such thing")

    rig.registry.add("work", work, max_attempts=3, retry=NOW)
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.FAILED)
    task = rig.store.tasks[task_id]
    assert endings(rig) == [Ending.RETRY, Ending.RETRY, Ending.FAILED]
    assert task.error is not None
    assert (task.error.type, task.error.attempt) == ("KeyError", 3)
    lines = [record for record in caplog.records if "failed: KeyError" in record.message]
    assert len(lines) == 3
    assert all(f"task {task_id} (work) attempt" in record.message and record.exc_info for record in lines)


async def test_retry_after_is_obeyed() -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> None:
        if ctx.attempt == 1:
            raise Retry("busy", after=0.002)

    rig.registry.add("work", work)
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    outcome = rig.store.outcomes[0][0]
    assert (outcome.ending, outcome.delay, outcome.error_message) == (Ending.RETRY, 0.002, "busy")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_no_exception_of_a_handler_ends_more_than_its_attempt(error: BaseException, in_thread: bool) -> None:
    rig = Rig(slots=1)

    async def work(task: Any, ctx: Any) -> None:
        raise error

    def plain(task: Any, ctx: Any) -> None:
        raise error

    rig.registry.add("work", plain if in_thread else work, max_attempts=1)
    ids = [rig.store.add(), rig.store.add()]
    async with running(rig):
        await eventually(lambda: all(rig.store.status(task_id) is Status.FAILED for task_id in ids))
    assert rig.store.outcomes[0][0].error_type == type(error).__name__


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_result_that_is_not_json_fails_the_attempt(in_thread: bool) -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> object:
        return object()

    rig.registry.add("work", (lambda task, ctx: {1, 2}) if in_thread else work, max_attempts=1)
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.FAILED)
    error = rig.store.tasks[task_id].error
    assert error is not None
    assert error.type == "ResultError"
    assert "not JSON" in error.message


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_attempt_that_takes_too_long_is_stopped(in_thread: bool) -> None:
    rig = Rig()
    seen = threading.Event()

    async def work(task: Any, ctx: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.set()

    def plain(task: Any, ctx: Any) -> None:
        while not ctx.wait_cancelled(60):
            pass
        seen.set()

    rig.registry.add("work", plain if in_thread else work, max_attempts=1)
    task_id = rig.store.add(timeout_seconds=0.01)
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.FAILED)
    error = rig.store.tasks[task_id].error
    assert error is not None
    assert error.type == "TimeoutError"
    assert "0.01 seconds" in error.message
    assert seen.is_set()


async def test_what_a_handler_does_before_it_first_waits_counts_as_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    loop = asyncio.get_running_loop()
    late = 0.0
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + late)

    async def work(task: Any, ctx: Any) -> None:
        nonlocal late
        late = 3600.0
        await asyncio.Event().wait()

    rig.registry.add("work", work, max_attempts=1)
    task_id = rig.store.add(timeout_seconds=3600.0)
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.FAILED)


async def test_kinds_without_a_handler_wait_and_are_told_once(caplog: Any) -> None:
    rig = Rig()
    waiting = [rig.store.add("b.kind"), rig.store.add("a.kind"), rig.store.add("a.kind")]
    async with running(rig):
        for _ in range(3):
            await rig.worker.waiting.run_once()
        health = rig.worker.health()
        assert health.ok
        assert "no handler here for: a.kind, b.kind" in health.detail
        assert [rig.store.status(task_id) for task_id in waiting] == [Status.NEW] * 3
        assert caplog.text.count("a.kind, b.kind") == 1
        del rig.store.tasks[waiting[0]]
        await rig.worker.waiting.run_once()
        assert rig.worker.waiting.kinds == ("a.kind",)
        rig.store.tasks.clear()
        with caplog.at_level(logging.INFO):
            await rig.worker.waiting.run_once()
        assert "for want of a handler any more" in caplog.text
        assert rig.worker.health().detail == "0 of 4 slots busy"


async def test_a_task_of_which_nobody_was_told_is_found_by_the_look_at_what_waits() -> None:
    rig = Rig()

    async def work(task: Any, ctx: Any) -> None: ...

    rig.registry.add("work", work)
    async with running(rig):
        await eventually(lambda: rig.store.claims)
        task_id = rig.store.add()
        await rig.worker.waiting.run_once()
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)


async def test_no_more_waiting_kinds_are_told_of_than_a_line_can_hold(caplog: Any) -> None:
    rig = Rig()
    for number in range(1000):
        rig.store.add(f"k{number:03}")
    async with running(rig):
        await rig.worker.waiting.run_once()
        for told in (caplog.text, rig.worker.health().detail):
            assert "k018, k019, and 980 more" in told
            assert "k020" not in told


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def test_context_variables_reach_threads() -> None:
    rig = Rig()
    VARIABLE.set("set")
    rig.registry.add("work", lambda task, ctx: [VARIABLE.get(), threading.current_thread().daemon])
    task_id = rig.store.add()
    async with running(rig):
        await eventually(lambda: rig.store.status(task_id) is Status.DONE)
    assert rig.store.tasks[task_id].result == ["set", True]
