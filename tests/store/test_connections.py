"""Connections that are kept at hand between uses."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from taskd.errors import Invalid, Unavailable
from taskd.store import connections
from taskd.store.connections import AT_HAND_FOR, Connection, Connections
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


async def test_who_waits_gets_one_before_who_comes_later(database_url: str) -> None:
    found, order = Clocked(database_url, max_size=1), []
    await found.database.open()

    async def use(name: str) -> None:
        await found.use()
        order.append(name)

    async with found.database.transaction():
        waiting = asyncio.create_task(use("waited"))
        await eventually(lambda: found.connections._wanted == 1)
    async with asyncio.timeout(30):
        await use("came later")
        await waiting
    assert order == ["waited", "came later"]
    await found.database.close()


async def test_it_goes_back_after_a_while_used_or_not(found: Clocked) -> None:
    await found.use(3)
    assert found.connections._timer is not None
    await found.connections.put_away()
    assert found.places == (0, 3)
    found.now = AT_HAND_FOR + 1
    await found.use()
    assert found.places == (1, 2)
    await found.connections.put_away()
    assert found.places == (3, 0)
    await found.use()
    found.now += AT_HAND_FOR / 2
    await found.use()
    await found.connections.put_away()
    assert found.places == (2, 1)


async def test_those_that_nobody_uses_are_put_away_by_and_by(found: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "AT_HAND_FOR", 0.01)
    await found.use(3)
    first = found.connections._timer
    assert first is not None
    await eventually(lambda: found.connections._timer is not first)
    found.now += 1
    await eventually(lambda: found.places == (3, 0))
    await eventually(lambda: found.connections._timer is None)
    await found.use()
    assert found.places == (2, 1)
    found.now += 1
    await eventually(lambda: found.places == (3, 0))


class Broken:
    """A pool that loses each connection that is given back."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    async def release(self, connection: Connection) -> None:
        connection.terminate()
        await self._pool.release(connection)
        raise BrokenPipeError


async def test_what_goes_wrong_on_the_way_back_is_no_fault_of_the_statement(found: Clocked) -> None:
    await found.use(2)
    found.connections._pool = Broken(found.connections._pool)  # type: ignore[assignment]
    found.now = AT_HAND_FOR + 1
    await found.use(2)
    with pytest.raises(Invalid):
        await found.database.execute("SELECT 1 / 0")
    await found.use()


async def test_those_that_were_lost_are_not_counted(found: Clocked, database_url: str) -> None:
    other = Database(database_url)
    await other.open()
    await other.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM unnest($1::int[]) pid", [*await found.use(3)]
    )
    await eventually(lambda: found.database.connections == (0, 0))
    await other.close()


async def test_a_close_that_is_cancelled_closes_all_at_once(database_url: str) -> None:
    found, observer = Clocked(database_url, max_size=3), Database(database_url)
    await asyncio.gather(found.database.open(), observer.open())
    await found.use(3)
    closing = asyncio.create_task(found.database.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    async def gone() -> bool:
        return bool(await observer.fetchval(OTHERS) == 0)

    await eventually(gone)
    await observer.close()


async def test_a_session_ends_with_its_transaction(found: Clocked) -> None:
    async with found.database.transaction() as session:
        await session.fetchval(PID)
    with pytest.raises(AttributeError):
        await session.fetchval(PID)


@pytest.mark.parametrize("fails", [False, True], ids=["cancelled", "failed"])
async def test_a_statement_that_ends_badly_leaves_nothing_for_the_garbage_collector(
    found: Clocked, fails: bool
) -> None:
    class Text(str):
        """One that can be seen to go."""

    async def ask() -> weakref.ref[Text]:
        text = Text("x")
        what = "SELECT 1 / 0, $1::text" if fails else "SELECT pg_sleep(600), $1::text"
        asked = asyncio.create_task(found.database.fetchval(what, text))
        if not fails:
            await eventually(lambda: not found.database.connections[1])
            asked.cancel()
        await asyncio.wait({asked})
        assert asked.cancelled() or isinstance(asked.exception(), Invalid)
        return weakref.ref(text)

    await found.use()
    gc.collect()
    gc.disable()
    try:
        left = await ask()
        # The wait for the cancelled statement's end is the pool's.
        await found.use()
        assert left() is None
    finally:
        gc.enable()


async def test_one_that_was_lost_meanwhile_is_replaced(found: Clocked, database_url: str) -> None:
    other = Database(database_url)
    await other.open()
    before = await found.use(3)
    ended = await other.fetchval("SELECT count(pg_terminate_backend(pid, 5000)) FROM unnest($1::int[]) pid", [*before])
    assert ended == 3
    # Until the loop has seen it: before that a statement would meet the end of its connection, and say so.
    await eventually(lambda: found.database.connections == (0, 0))
    after = await found.use()
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
        await eventually(found.connections._pool.is_closing)
        with pytest.raises(Unavailable):
            await found.use()
        assert await session.fetchval("SELECT 1") == 1
        assert not closing.done()
    async with asyncio.timeout(30):
        await closing
    assert await observer.fetchval(OTHERS) == 0
    await observer.close()
