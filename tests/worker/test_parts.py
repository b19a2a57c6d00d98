"""The worker's background duties, each by its `run_once`, on clocks that stand still."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from uuid import uuid4

import pytest

from taskd.domain.model import Status
from taskd.domain.outcome import Report
from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.worker import cleaner, reaper
from taskd.worker.context import MAX_NOTE, Context
from taskd.worker.dispatcher import Promoter
from taskd.worker.job import Job
from taskd.worker.plan import POLL
from taskd.worker.reporter import Reporter
from taskd.worker.samples import echo, fail, flaky, sleep
from tests.worker.model import FakeClock, Memory, make_task


class Due:
    """A promoter on a queue that says what it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.answer: float | None = None
        self.away = False
        self.ready = 0
        self.promoter = Promoter(self, Supervisor(), self._on_ready, clock=self.clock)  # type: ignore[arg-type]

    async def promote(self) -> float | None:
        if self.away:
            raise Unavailable("away")
        return self.answer

    def _on_ready(self) -> None:
        self.ready += 1


async def test_the_promoter_looks_when_the_next_task_is_due() -> None:
    due = Due()
    assert await due.promoter.run_once() == POLL
    due.answer = 1.5
    assert await due.promoter.run_once() == 1.5
    assert due.ready == 0
    due.clock.now += 1.5
    due.answer = None
    assert await due.promoter.run_once() == POLL
    assert due.ready == 1


async def test_the_promoter_goes_on_at_once_when_there_is_more() -> None:
    due = Due()
    due.answer = 0.0
    assert await due.promoter.run_once() == 0
    assert due.ready == 1


async def test_what_is_due_survives_an_outage() -> None:
    due = Due()
    due.promoter.due_in(0.5)
    due.away = True
    with pytest.raises(Unavailable):
        await due.promoter.run_once()
    due.away = False
    due.answer = 0.5
    assert await due.promoter.run_once() == 0.5
    assert due.ready == 0


async def test_the_promoter_does_not_wake_itself() -> None:
    due = Due()
    due.answer = 4.0
    await due.promoter.run_once()
    due.answer = 2.0
    await due.promoter.run_once()
    assert not due.promoter._service._woken.is_set()
    due.promoter.due_in(3.0)
    assert not due.promoter._service._woken.is_set()
    due.promoter.due_in(1.0)
    assert due.promoter._service._woken.is_set()


async def test_the_reaper_takes_back_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    store, told = Memory(), []
    monkeypatch.setattr(reaper, "BATCH", 2)
    for _ in range(3):
        store.holders[store.add(status=Status.RUNNING)] = uuid4()
    one = reaper.Reaper(store, Supervisor(), lambda: told.append(1), clock=lambda: 0.0)
    assert [await one.run_once() for _ in range(3)] == [0.0, reaper.EVERY, reaper.EVERY]
    one.suspect(True)
    assert await one.run_once() == reaper.CLOSELY
    one.suspect(False)
    assert await one.run_once() == reaper.EVERY
    assert (one.rescued, len(told)) == (3, 2)


async def test_a_look_for_dead_processes_that_takes_long_is_followed_by_a_longer_pause() -> None:
    ticks = iter([0.0, 0.05, 10.0, 10.5, 20.0, 29.0])
    one = reaper.Reaper(Memory(), Supervisor(), lambda: None, clock=lambda: next(ticks))
    assert [await one.run_once() for _ in range(3)] == [reaper.EVERY, 5.0, reaper.LONGEST]


class Old:
    """Has so many old tasks."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.folds = 0
        self.rotations = 0

    async def delete_finished(self, limit: int) -> int:
        deleted = min(limit, self.number)
        self.number -= deleted
        return deleted

    async def fold_totals(self) -> int:
        self.folds += 1
        return 0

    async def rotate_events(self) -> None:
        # Whatever goes has been summed up.
        assert self.folds > self.rotations
        self.rotations += 1


async def test_the_cleaner_deletes_in_batches_and_rotates_now_and_then() -> None:
    old, clock = Old(1500), FakeClock()
    one = cleaner.Cleaner(old, Supervisor(), clock=clock)
    assert [await one.run_once() for _ in range(3)] == [cleaner.BETWEEN, cleaner.EVERY, cleaner.EVERY]
    assert (old.number, old.folds, old.rotations) == (0, 1, 1)
    clock.now += cleaner.EVERY
    await one.run_once()
    assert (old.folds, old.rotations) == (2, 1)
    clock.now += cleaner.ROTATE_EVERY
    await one.run_once()
    assert (old.folds, old.rotations) == (3, 2)


class Told:
    """Takes reports."""

    def __init__(self) -> None:
        self.sent: list[Report] = []
        self.waiting: list[Report] = []
        self.gate = asyncio.Event()

    async def send(self, report: Report) -> None:
        self.sent.append(report)
        await self.gate.wait()

    def put(self, report: Report) -> None:
        self.waiting.append(report)


async def test_while_a_report_is_stored_only_the_newest_waits() -> None:
    told = Told()
    context = Context(Job(make_task(attempt=1), uuid4()), told)
    calls = [asyncio.create_task(context.progress(n / 100, f"{n} %")) for n in range(100)]
    for _ in range(3):
        await asyncio.sleep(0)
    told.gate.set()
    await asyncio.gather(*calls)
    assert len(told.sent) <= 2
    assert told.sent[-1].progress == 0.99


async def test_reports_of_a_thread_do_not_fill_the_event_loop() -> None:
    told = Told()
    context = Context(Job(make_task(attempt=1), uuid4()), told)

    def work() -> None:
        for n in range(10_001):
            context.report(n / 10_000)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()  # the loop stands still meanwhile
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [report.progress for report in told.waiting] == [1.0]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), True, "0.5", None])
async def test_progress_is_from_zero_to_one(fraction: Any) -> None:
    context = Context(Job(make_task(), uuid4()), Told())
    with pytest.raises(ValueError, match="0 to 1"):
        await context.progress(fraction)
    with pytest.raises(ValueError, match="0 to 1"):
        context.report(fraction)


async def test_a_note_is_cut_and_cleaned() -> None:
    told = Told()
    told.gate.set()
    context = Context(Job(make_task(), uuid4()), told)
    await context.progress(1, "nul \0" + "x" * 1000)
    note = told.sent[0].note
    assert note is not None
    assert len(note) == MAX_NOTE
    assert "\0" not in note


async def test_a_report_after_the_loop_is_closed_is_dropped() -> None:
    def make() -> Context:
        async def inside() -> Context:
            return Context(Job(make_task(), uuid4()), Told())

        return asyncio.run(inside())

    context = await asyncio.to_thread(make)
    context.report(0.5)
    assert not context.cancelled


async def test_the_reporter_keeps_the_newest_of_each_attempt_through_an_outage() -> None:
    store = Memory()
    reporter = Reporter(store, Supervisor())
    lease_id = uuid4()
    ids = [store.add(status=Status.RUNNING, attempt=1) for _ in range(3)]
    store.holders.update(dict.fromkeys(ids, lease_id))
    for n in range(100):
        for task_id in ids:
            reporter.put(Report(task_id, 1, lease_id, n / 100, None))
    reporter.forget((ids[2], 1))
    store.away = True
    with pytest.raises(Unavailable):
        await reporter.run_once()
    await reporter.send(Report(ids[0], 1, lease_id, 0.1, None))
    store.away = False
    reporter.put(Report(ids[0], 1, lease_id, 1.0, None))
    await reporter.run_once()
    await reporter.run_once()
    assert sorted(report.progress for report, _ in store.reports) == [0.99, 1.0]


async def test_the_sample_sleep_reports_ten_times() -> None:
    told, pauses = Told(), []
    told.gate.set()
    task = make_task("sleep", payload={"seconds": 5})

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    assert await sleep(task, Context(Job(task, uuid4()), told), pause) == {"slept": 5}
    assert pauses == [0.5] * 10
    assert [report.progress for report in told.sent] == [n / 10 for n in range(1, 11)]


@pytest.mark.parametrize("seconds", [-1, "1", True, 1e9, None])
async def test_the_sample_sleep_refuses_what_is_no_time(seconds: Any) -> None:
    task = make_task("sleep", payload={"seconds": seconds})
    with pytest.raises(ValueError, match=r"payload\.seconds"):
        await sleep(task, Context(Job(task, uuid4()), Told()))


async def test_the_other_samples() -> None:
    task = make_task(payload={"failures": 2, "message": "as told"}, attempt=2)
    context = Context(Job(task, uuid4()), Told())
    assert await echo(task, context) == task.payload
    with pytest.raises(RuntimeError, match="failure 2 of 2"):
        await flaky(task, context)
    with pytest.raises(RuntimeError, match="as told"):
        await fail(task, context)
    third = make_task(payload={"failures": 2}, attempt=3)
    assert await flaky(third, Context(Job(third, uuid4()), Told())) == {"attempts": 3}
