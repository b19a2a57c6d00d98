"""The sampler of the event loop's lag, on a loop whose time is moved by hand, and on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from taskd.metrics.lag import EVERY, LoopLag
from taskd.metrics.registry import Histogram
from tests.waiting import eventually


@dataclass
class Timer:
    when: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """Calls what is due when it is told the time."""

    now: float = 100.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def run_at(self, now: float) -> None:
        self.now = now
        due = [timer for timer in self.waiting if timer.when <= now]
        self.timers = [timer for timer in self.waiting if timer.when > now]
        for timer in due:
            timer.callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def lag() -> Histogram:
    return Histogram((0.01, 0.1, 1.0))


async def test_it_notes_how_late_it_was_called(loop: Loop, lag: Histogram) -> None:
    sampler = LoopLag(lag, loop=loop)
    sampler.start()
    assert [timer.when for timer in loop.waiting] == [100 + EVERY]
    loop.run_at(100 + EVERY)
    loop.run_at(100 + 2 * EVERY + 0.0625)
    assert (lag.counts, lag.sum) == ([1, 1, 0, 0], 0.0625)


async def test_a_stall_of_many_periods_counts_once_with_its_length(loop: Loop, lag: Histogram) -> None:
    sampler = LoopLag(lag, loop=loop)
    sampler.start()
    loop.run_at(100 + EVERY + 60)
    assert (lag.counts, lag.sum) == ([0, 0, 0, 1], 60)
    assert [timer.when for timer in loop.waiting] == [loop.now + EVERY]
    loop.run_at(loop.now + EVERY)
    assert (lag.count, lag.sum) == (2, 60)


async def test_start_and_stop_are_safe_twice_and_stop_before_start(loop: Loop, lag: Histogram) -> None:
    sampler = LoopLag(lag, loop=loop)
    sampler.stop()
    sampler.start()
    sampler.start()
    assert len(loop.waiting) == 1
    loop.run_at(100 + EVERY)
    sampler.stop()
    sampler.stop()
    assert not loop.waiting
    sampler.start()
    loop.run_at(loop.now + EVERY)
    assert lag.count == 2


async def test_it_follows_a_real_loop_without_a_task(lag: Histogram) -> None:
    tasks = asyncio.all_tasks()
    sampler = LoopLag(lag, every=0.001)
    sampler.start()
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: lag.count >= 3)
    sampler.stop()
    seen = lag.count
    for _ in range(3):
        await asyncio.sleep(0.002)
    assert lag.count == seen
