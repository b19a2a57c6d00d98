"""Single flight: who loads, who waits, who takes over, and who begins anew."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.cache.flight import Flights
from taskd.cache.port import Key

pytestmark = pytest.mark.timeout(30)

A, B = Key("task", "a"), Key("task", "b")


class Loads:
    """Loads that end when they are told to, numbered in the order in which they began."""

    def __init__(self) -> None:
        self.flights: Flights[int] = Flights()
        self.under_way: list[asyncio.Future[int]] = []
        self.callers: list[asyncio.Task[tuple[int, bool]]] = []

    async def load(self) -> int:
        self.under_way.append(asyncio.get_running_loop().create_future())
        return await self.under_way[-1]

    async def call(self, key: Key = A, number: int = 1) -> list[asyncio.Task[tuple[int, bool]]]:
        callers = [asyncio.create_task(self.flights.run(key.scope, key, self.load)) for _ in range(number)]
        self.callers += callers
        await turns()
        return callers


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def loads() -> AsyncIterator[Loads]:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    loads = Loads()
    yield loads
    assert loads.flights._scopes == {}
    await asyncio.gather(*loads.callers, return_exceptions=True)
    loads.callers.clear()
    loads.under_way.clear()
    gc.collect()
    await turns()
    assert unheard == []


async def test_one_loads_and_the_others_wait_for_it(loads: Loads) -> None:
    callers = await loads.call(number=3)
    loads.under_way[0].set_result(7)
    assert await asyncio.gather(*callers) == [(7, False), (7, True), (7, True)]
    assert len(loads.under_way) == 1


async def test_other_keys_and_later_callers_load_for_themselves(loads: Loads) -> None:
    await loads.call(A)
    await loads.call(B)
    assert len(loads.under_way) == 2
    for number, load in enumerate(loads.under_way):
        load.set_result(number)
    await turns()
    [later] = await loads.call(A)
    loads.under_way[2].set_result(9)
    assert await later == (9, False)


async def test_an_error_is_the_answer_to_all(loads: Loads) -> None:
    callers = await loads.call(number=3)
    loads.under_way[0].set_exception(KeyError("none"))
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [KeyError] * 3


async def test_an_error_that_nobody_takes_any_more_is_no_warning(loads: Loads) -> None:
    leader, waiter = await loads.call(number=2)
    loads.under_way[0].set_exception(KeyError("none"))
    await asyncio.sleep(0)
    # The waiter has its answer, and is cancelled before it comes to it.
    waiter.cancel()
    with pytest.raises(KeyError):
        await leader
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_when_the_leader_is_cancelled_the_next_one_leads(loads: Loads) -> None:
    leader, second, third = await loads.call(number=3)
    leader.cancel()
    await turns()
    assert leader.cancelled()
    [late] = await loads.call()
    assert len(loads.under_way) == 2
    loads.under_way[1].set_result(8)
    assert await asyncio.gather(second, third, late) == [(8, False), (8, True), (8, True)]


async def test_who_becomes_the_leader_and_is_cancelled_in_one_moment_hands_on(loads: Loads) -> None:
    leader, second, third = await loads.call(number=3)
    leader.cancel()
    await asyncio.sleep(0)
    second.cancel()
    await turns()
    assert second.cancelled()
    loads.under_way[-1].set_result(8)
    assert await third == (8, False)


async def test_when_all_have_gone_the_next_caller_begins_anew(loads: Loads) -> None:
    leader, second = await loads.call(number=2)
    leader.cancel()
    await asyncio.sleep(0)
    second.cancel()
    await turns()
    assert loads.flights._scopes == {}
    [late] = await loads.call()
    loads.under_way[-1].set_result(5)
    assert await late == (5, False)


async def test_one_who_waits_may_go_away_and_nobody_notices(loads: Loads) -> None:
    leader, second, third = await loads.call(number=3)
    second.cancel()
    await turns()
    loads.under_way[0].set_result(1)
    assert await asyncio.gather(leader, third) == [(1, False), (1, True)]


@pytest.mark.parametrize("everything", [False, True])
async def test_nobody_gets_on_a_flight_that_has_landed(loads: Loads, everything: bool) -> None:
    old = await loads.call(number=2)
    if everything:
        loads.flights.land_all()
    else:
        loads.flights.land(["a", "unknown"])
    new = await loads.call(number=2)
    assert len(loads.under_way) == 2
    # The old one's end does not end the new one.
    loads.under_way[0].set_result(1)
    await turns()
    newest = await loads.call()
    loads.under_way[1].set_result(2)
    assert await asyncio.gather(*old) == [(1, False), (1, True)]
    assert await asyncio.gather(*new, *newest) == [(2, False), (2, True), (2, True)]


async def test_landing_ends_the_scopes_own_flights_only(loads: Loads) -> None:
    first = await loads.call(B)
    loads.flights.land(["a"])
    second = await loads.call(B)
    loads.under_way[0].set_result(3)
    assert await asyncio.gather(*first, *second) == [(3, False), (3, True)]


async def test_a_landed_flight_has_a_next_leader_too(loads: Loads) -> None:
    leader, second = await loads.call(number=2)
    loads.flights.land(["a"])
    leader.cancel()
    await turns()
    [other] = await loads.call()
    loads.under_way[1].set_result(1)
    loads.under_way[2].set_result(2)
    assert (await second, await other) == ((1, False), (2, False))


STEPS = st.lists(
    st.tuples(st.sampled_from(["call", "cancel", "finish", "fail", "land", "turn"]), st.integers(0, 20)), max_size=40
)


@settings(deadline=None)
@given(steps=STEPS)
def test_everybody_gets_an_answer_that_was_not_loaded_before_the_last_landing(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, int]]) -> None:
    flights: Flights[int] = Flights()
    now = 0
    running: list[tuple[int, asyncio.Future[int]]] = []
    callers: list[tuple[int, asyncio.Task[tuple[int, bool]]]] = []

    async def load() -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        running.append((now, future))
        return await future

    def end(number: int, *, well: bool) -> None:
        if running:
            began, future = running.pop(number % len(running))
            if not future.done() and well:
                future.set_result(began)
            elif not future.done():
                future.set_exception(KeyError())

    for step, number in steps:
        if step == "call":
            callers.append((now, asyncio.create_task(flights.run(A.scope, A, load))))
        elif step == "cancel" and callers:
            callers[number % len(callers)][1].cancel()
        elif step == "land":
            now += 1
            flights.land(["a"])
        elif step in {"finish", "fail"}:
            end(number, well=step == "finish")
        else:
            await asyncio.sleep(0)
    for _ in range(len(callers) + 5):
        await turns()
        while running:
            end(0, well=True)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(task for _, task in callers), return_exceptions=True)
    for (began, _), answer in zip(callers, answers, strict=True):
        if isinstance(answer, tuple):
            assert answer[0] >= began
        else:
            assert isinstance(answer, KeyError | asyncio.CancelledError)
    assert flights._scopes == {}
