"""What connections make others wait for, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

import pytest

from taskd.errors import RateLimited
from taskd.rpc import peers as module
from taskd.rpc.peers import (
    ARRIVES_WITHIN,
    EACH,
    FEW,
    MOST_ARRIVING,
    MOST_HELD,
    MOST_HELD_BY_ALL,
    MOST_SLOW,
    PATIENCE,
    SLOW_AFTER,
    SLOWEST,
    START_HELD,
    Peers,
    TooMuchUnread,
)
from taskd.runtime.supervisor import Supervisor


class World:
    """A ledger, its clock, and whom it had closed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.closed: set[str] = set()
        self.peers = Peers(self._sever, Supervisor(), lambda: self.now)

    def _sever(self, names: Collection[str]) -> None:
        self.closed |= set(names)

    async def look(self, after: float = 0.0) -> set[str]:
        """Return who is closed by a look after so many seconds."""
        self.now += after
        self.closed = set()
        await self.peers.run_once()
        return self.closed


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_taken_leaves_nothing(world: World) -> None:
    for taken in [world.peers.hold("a", 1000) for _ in range(10)]:
        taken()
        taken()
    assert (world.peers.held, len(world.peers)) == (0, 0)


def test_one_connection_may_hold_so_much_or_one_answer(world: World) -> None:
    taken = world.peers.hold("a", 2 * MOST_HELD)
    with pytest.raises(TooMuchUnread):
        world.peers.hold("a", 1)
    with pytest.raises(TooMuchUnread):
        world.peers.check("a")
    # It is its own fault alone.
    world.peers.check("b")
    taken()
    world.peers.check("a")
    world.peers.hold("a", 1)


def test_who_has_taken_much_may_hold_more(world: World) -> None:
    size = START_HELD // 4
    keep = world.peers.hold("a", 1)

    def fits() -> int:
        """Return how many more answers may wait at once."""
        holding = []
        with contextlib.suppress(TooMuchUnread):
            while True:
                holding.append(world.peers.hold("a", size - EACH))
        for taken in holding:
            taken()
        return len(holding)

    assert [fits() for _ in range(6)] == [3, 6, 12, 24, 31, 31]
    keep()
    assert len(world.peers) == 0


def test_the_end_of_a_call_is_counted_and_never_refused(world: World) -> None:
    ends = [world.peers.hold("a", 2 * MOST_HELD), *(world.peers.hold("a", 0) for _ in range(3))]
    assert world.peers.held == 2 * MOST_HELD + 4 * EACH
    for taken in ends:
        taken()
    assert len(world.peers) == 0


async def test_when_all_hold_too_much_the_oldest_goes_and_not_who_comes(world: World) -> None:
    size = MOST_HELD // 2 - 2 * EACH
    names = [f"{number}" for number in range(MOST_HELD_BY_ALL // size - 1)]
    for name in names:
        world.peers.hold(name, size)
        world.now += 0.1
    world.peers.hold("small and old", 1)
    for newcomer in ("x", "y"):
        world.peers.hold(newcomer, size)
    assert world.peers.held <= MOST_HELD_BY_ALL
    assert await world.look() == {names[0]}
    # The oldest itself is refused.
    with pytest.raises(TooMuchUnread):
        world.peers.hold(names[1], size - 2 * EACH)


async def test_an_answer_may_wait_the_longer_the_larger_it_is(world: World) -> None:
    world.peers.hold("large", 100 * SLOWEST)
    world.peers.hold("small", 1)
    assert await world.look(PATIENCE - 1) == set()
    assert await world.look(2) == {"small"}
    assert await world.look(97) == set()
    assert await world.look(4) == {"large"}
    assert (world.peers.held, len(world.peers)) == (0, 0)


async def test_a_request_must_come_in_time(world: World) -> None:
    (await world.peers.enter("a"))()
    await world.peers.enter("b")
    assert await world.look(ARRIVES_WITHIN - 1) == set()
    assert await world.look(1) == {"b"}
    assert len(world.peers) == 0


async def test_few_requests_come_at_once_and_others_get_their_turn(world: World) -> None:
    arrived = [await world.peers.enter("a") for _ in range(MOST_ARRIVING)]
    waiting = [asyncio.create_task(world.peers.enter("a")) for _ in range(3)]
    await world.peers.enter("b")
    assert not any(task.done() for task in waiting)
    for one in arrived[:2]:
        one()
    for _ in range(10):
        await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 2
    arrived[2]()
    for task in waiting:
        (await task)()


async def test_whose_turn_never_comes_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ARRIVES_WITHIN", 0.0)
    for _ in range(MOST_ARRIVING):
        await world.peers.enter("a")
    with pytest.raises(TooMuchUnread):
        await world.peers.enter("a")


async def test_of_too_many_slow_requests_those_go_that_have_most(world: World) -> None:
    for number in range(MOST_SLOW // 8):
        for _ in range(8):
            await world.peers.enter(f"{number}")
    assert await world.look(SLOW_AFTER) == set()
    for _ in range(9):
        await world.peers.enter("most")
    assert await world.look() == set()
    assert await world.look(SLOW_AFTER) == {"most"}


def test_with_too_many_streams_who_has_few_gets_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STREAMS", 20)
    streams = [world.peers.stream("a") for _ in range(20)]
    for stream in streams:
        stream.__enter__()
    with pytest.raises(RateLimited), world.peers.stream("a"):
        pass
    others = [world.peers.stream("b") for _ in range(FEW)]
    for stream in others:
        stream.__enter__()
    with pytest.raises(RateLimited), world.peers.stream("b"):
        pass
    for stream in (*streams, *others):
        stream.__exit__(None, None, None)
    assert len(world.peers) == 0
    with world.peers.stream("a"):
        pass
