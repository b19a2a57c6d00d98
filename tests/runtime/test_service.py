import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor

Make = Callable[..., Periodic]


class Duty:
    """A `run_once` that does what it is told, call by call, and says when it was called."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self._calls: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self) -> float | None:
        self._calls.put_nowait(None)
        answer: Any = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer()
        pause: float | None = await answer if isinstance(answer, Awaitable) else answer
        return pause

    async def called(self) -> None:
        async with asyncio.timeout(10):
            await self._calls.get()

    @property
    def calls_left(self) -> int:
        return self._calls.qsize()


async def turns() -> None:
    """Let all that can go on without waiting go on."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.stop()


@pytest.fixture
def periodic(supervisor: Supervisor) -> Make:
    def make(duty: Duty, backoff: Backoff | None = None) -> Periodic:
        return Periodic("duty", duty, supervisor, backoff or Backoff(0, 0))

    return make


async def test_the_first_call_comes_at_once_and_the_next_after_its_pause(periodic: Make) -> None:
    duty = Duty(0, 0.001, 3600)
    service = periodic(duty)
    service.start()
    for _ in range(3):
        await duty.called()
    await turns()
    assert duty.calls_left == 0


async def test_none_waits_to_be_woken(periodic: Make) -> None:
    duty = Duty()
    service = periodic(duty)
    service.start()
    await duty.called()
    await turns()
    assert duty.calls_left == 0
    service.wake()
    await duty.called()


async def test_a_wake_cuts_a_pause_short(periodic: Make) -> None:
    duty = Duty(3600, 3600)
    service = periodic(duty)
    service.start()
    await duty.called()
    await turns()
    service.wake()
    await duty.called()


async def test_a_wake_during_a_call_asks_for_one_more(periodic: Make) -> None:
    go_on = asyncio.Event()

    async def long() -> None:
        await go_on.wait()

    duty = Duty(long)
    service = periodic(duty)
    service.start()
    await duty.called()
    service.wake()
    service.wake()
    go_on.set()
    await duty.called()
    await turns()
    assert duty.calls_left == 0


async def test_an_outage_is_told_once_and_survived(periodic: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    recovered = asyncio.Event()
    duty = Duty(Unavailable("no database"), Unavailable("still none"), recovered.set, Unavailable("again"), 3600)
    service = periodic(duty)
    service.start()
    await duty.called()
    await turns()
    await recovered.wait()
    await turns()
    assert service.fault is None
    service.wake()
    for _ in range(4):
        await duty.called()
    await turns()
    assert [record.getMessage() for record in caplog.records if record.name == "taskd.service"] == [
        "duty: no database; trying again until it works",
        "duty works again",
        "duty: again; trying again until it works",
        "duty works again",
    ]


async def test_the_fault_says_why(periodic: Make) -> None:
    duty = Duty(Unavailable("no database"))
    service = periodic(duty, Backoff(3600, 3600))
    assert service.fault is None
    service.start()
    await duty.called()
    await turns()
    assert service.fault == "no database"


async def test_an_outage_backs_off_and_wakes_do_not_hurry_it(periodic: Make) -> None:
    duty = Duty(Unavailable("no database"))
    service = periodic(duty, Backoff(3600, 3600))
    service.start()
    await duty.called()
    await turns()
    service.wake()
    await turns()
    assert duty.calls_left == 0


async def test_success_resets_the_backoff(periodic: Make) -> None:
    class Counted(Backoff):
        resets = 0

        def reset(self) -> None:
            self.resets += 1

    backoff = Counted(0, 0)
    duty = Duty(Unavailable("no database"), 3600)
    periodic(duty, backoff).start()
    await duty.called()
    assert backoff.resets == 0
    await duty.called()
    await turns()
    assert backoff.resets == 1


async def test_a_bug_ends_it_loudly(periodic: Make, supervisor: Supervisor) -> None:
    periodic(Duty(KeyError("bug"))).start()
    with pytest.raises(KeyError):
        async with asyncio.timeout(10):
            await supervisor.failed


async def test_stop_is_safe_before_start_and_twice_and_cancels_the_call(periodic: Make, supervisor: Supervisor) -> None:
    cancelled = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    duty = Duty(long)
    service = periodic(duty)
    await service.stop()
    service.start()
    await duty.called()
    await service.stop()
    await service.stop()
    assert cancelled == [True]
    assert not supervisor.failed.done()


async def test_start_twice_is_one_loop_and_after_stop_it_starts_again(periodic: Make) -> None:
    duty = Duty()
    service = periodic(duty)
    service.start()
    service.start()
    await duty.called()
    await turns()
    assert duty.calls_left == 0
    await service.stop()
    service.start()
    await duty.called()


async def test_a_duty_that_never_waits_lets_others_run(periodic: Make) -> None:
    calls = 0

    async def busy() -> float:
        nonlocal calls
        calls += 1
        service.wake()
        return 0

    service = Periodic("busy", busy, Supervisor(), Backoff(0, 0))
    service.start()
    await turns()
    assert 1 < calls <= 25
    await service.stop()
