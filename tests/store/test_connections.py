"""Connections that are kept at hand between uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from taskd.errors import Invalid, Unavailable
from taskd.store.connections import AT_HAND_FOR, Connections
from taskd.store.pool import Database
from tests.waiting import eventually

PID = "SELECT pg_backend_pid()"
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Clocked:
    """A database with a clock that stands still."""

    def __init__(self, url: str, **options: int) -> None:
        self.now = 0.0
        self.database = Database(url, clock=lambda: self.now, **options)

    @property
    def connections(self) -> Connections:
        assert self.database._open is not None
        return self.database._open

    @property
    def places(self) -> tuple[int, int]:
        """How many idle connections are in the pool, and how many at hand."""
        return self.connections._pool.get_idle_size(), len(self.connections._at_hand)

    async def use(self, number: int = 1) -> set[int]:
        """Use so many connections at once, and return whose they are."""
        return set(await asyncio.gather(*(self.database.fetchval(f"{PID} FROM pg_sleep(0.02)") for _ in range(number))))


@pytest.fixture
async def found(database_url: str) -> AsyncIterator[Clocked]:
    clocked = Clocked(database_url, max_size=3)
    await clocked.database.open()
    yield clocked
    await clocked.database.close()


async def test_one_that_was_used_is_at_hand_for_the_next_use(found: Clocked) -> None:
    assert found.places == (1, 0)
    pids = await found.use()
    assert found.places == (0, 1)
    assert [await found.use() for _ in range(3)] == [pids] * 3
    async with found.database.transaction() as session:
        assert found.places == (0, 0)
        assert {await session.fetchval(PID)} == pids
    assert (found.places, found.database.connections) == ((0, 1), (1, 1))


async def test_no_two_use_one_at_the_same_time(found: Clocked) -> None:
    for _ in range(3):
        assert len(await found.use(3)) == 3
    assert found.places == (0, 3)
    assert found.database.connections == (3, 3)


async def test_who_waits_gets_one_before_who_comes_later(found: Clocked) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        await found.database.execute("SELECT pg_sleep(0.01)")
        order.append(number)
        if number < 3:
            await one(number + 10)

    async with asyncio.timeout(30):
        await asyncio.gather(*(one(number) for number in range(6)))
    assert {3, 4, 5} == set(order[3:6]), "those who used one already come after those who waited"


async def test_it_goes_back_after_a_while_used_or_not(found: Clocked) -> None:
    await found.use(3)
    found.now = AT_HAND_FOR + 1
    await found.use()
    # The one that was used, and one of the others.
    assert found.places == (2, 1)
    await found.use()
    assert found.places == (3, 0)
    await found.use()
    found.now += AT_HAND_FOR / 2
    await found.use()
    assert found.places == (2, 1)


async def test_one_that_was_lost_meanwhile_is_replaced(found: Clocked, database_url: str) -> None:
    other = Database(database_url)
    await other.open()
    before = await found.use(3)
    ended = await other.fetchval("SELECT count(pg_terminate_backend(pid, 5000)) FROM unnest($1::int[]) pid", [*before])
    assert ended == 3
    # The loop has not seen all of it yet; a statement that meets the end of its connection says so.
    for _ in range(3):
        try:
            after = await found.use()
        except Unavailable:
            continue
    assert not after & before
    assert found.database.connections == (1, 1)
    await other.close()


async def test_one_with_which_something_went_wrong_is_not_kept_at_hand(found: Clocked) -> None:
    await found.use()
    with pytest.raises(Invalid):
        await found.database.execute("SELECT 1 / 0")
    assert found.places == (1, 0)


async def test_one_whose_user_was_cancelled_is_given_to_nobody_before_its_statement_has_ended(found: Clocked) -> None:
    await found.use()
    sleeping = asyncio.create_task(found.database.execute("SELECT pg_sleep(600)"))
    await eventually(lambda: not found.database.connections[1])
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    async with asyncio.timeout(30):
        assert await found.database.fetchval("SELECT 7") == 7


async def test_a_close_waits_for_who_uses_one_and_for_nobody_else(database_url: str) -> None:
    found, observer = Clocked(database_url, max_size=3), Database(database_url)
    await asyncio.gather(found.database.open(), observer.open())
    await found.use(3)
    async with found.database.transaction() as session:
        closing = asyncio.create_task(found.connections.close())
        await eventually(lambda: found.connections.is_closing)
        with pytest.raises(Unavailable):
            await found.use()
        assert await session.fetchval("SELECT 1") == 1
        assert not closing.done()
    async with asyncio.timeout(30):
        await closing
    assert await observer.fetchval(OTHERS) == 0
    await observer.close()
