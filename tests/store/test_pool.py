"""Connections, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from taskd.errors import ConfigError, Invalid, TaskdError, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.store.faults import translate, translated
from taskd.store.pool import Database
from taskd.store.statements import Statement


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.ConnectionDoesNotExistError("x"), Unavailable),
        (asyncpg.CannotConnectNowError("x"), Unavailable),
        (asyncpg.AdminShutdownError("x"), Unavailable),
        (asyncpg.CrashShutdownError("x"), Unavailable),
        (asyncpg.TooManyConnectionsError("x"), Unavailable),
        (asyncpg.DiskFullError("x"), Unavailable),
        (asyncpg.QueryCanceledError("x"), Unavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), Unavailable),
        (asyncpg.DeadlockDetectedError("x"), Unavailable),
        (asyncpg.LockNotAvailableError("x"), Unavailable),
        (asyncpg.InvalidPasswordError("x"), Unavailable),
        (ConnectionRefusedError("x"), Unavailable),
        (TimeoutError("x"), Unavailable),
        (asyncpg.CharacterNotInRepertoireError("x"), Invalid),
        (asyncpg.InvalidTextRepresentationError("x"), Invalid),
        (asyncpg.UndefinedTableError("x"), None),
        (asyncpg.UniqueViolationError("x"), None),
        (asyncpg.InterfaceError("x"), None),
        (asyncpg.ClientConfigurationError("x"), None),
        (ValueError("x"), None),
    ],
)
def test_each_fault_is_told_by_its_class(error: Exception, expected: type[TaskdError] | None) -> None:
    found = translate(error)
    assert type(found) is (expected or type(None))
    with pytest.raises(expected or type(error)) as raised, translated():
        raise error
    assert raised.value.__cause__ is (error if expected else None)


@pytest.mark.parametrize("value", ["n\0l", "\ud800"])
async def test_text_that_can_not_be_stored_is_the_callers_fault(database: Database, value: str) -> None:
    with pytest.raises(Invalid):
        await database.fetchval("SELECT $1::text", value)
    assert await database.fetchval("SELECT $1::text", "fine") == "fine"


async def test_a_bug_in_a_statement_is_not_hidden(database: Database) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await database.execute("SELEC")
    with pytest.raises(asyncpg.InterfaceError):
        await database.execute("SELECT $1::int", 1, 2)


async def test_open_waits_for_one_connection(database_url: str) -> None:
    database = Database(database_url, max_size=10)
    assert database.connections == (0, 0)
    await database.open()
    await database.open()
    assert database.connections == (1, 1)
    await asyncio.gather(*(database.execute("SELECT pg_sleep(0.05)") for _ in range(4)))
    assert database.connections == (4, 4)
    await database.close()
    await database.close()


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    database = Database(database_url)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await database.fetch("SELECT 1")
        with pytest.raises(Unavailable):
            async with database.transaction():
                pass
        await database.open()
        await database.close()


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql://x@/x?host={tmp_path}")
    with pytest.raises(Unavailable):
        await database.open()
    await database.close()


async def test_a_refused_database_is_a_matter_of_settings(database_url: str) -> None:
    wrong = urlunsplit(urlsplit(database_url)._replace(path="/there_is_none"))
    with pytest.raises(ConfigError, match="there_is_none"):
        await Database(wrong).open()
    with pytest.raises(ConfigError):
        await Database("mysql://x").open()


@pytest.mark.parametrize("direct", [True, False])
async def test_lost_connections_heal_with_the_next_call(database_url: str, direct: bool) -> None:
    database = Database(database_url, max_size=1, direct=direct)
    await database.open()
    with pytest.raises(Unavailable):
        await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await database.fetchval("SELECT 1") == 1
    with pytest.raises(Unavailable):
        async with database.transaction() as session:
            await session.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    row = await database.fetchrow("SELECT 2 AS two")
    assert row is not None
    assert row["two"] == 2
    await database.close()


async def test_a_statement_that_takes_too_long_is_given_up(database_url: str) -> None:
    database = Database(database_url, max_size=1, timeout=0.2)
    await database.open()
    with pytest.raises(Unavailable):
        await database.execute("SELECT pg_sleep(30)")
    assert await database.fetchval("SELECT 1") == 1
    async with database.transaction():
        with pytest.raises(Unavailable):
            await database.fetchval("SELECT 1")
    await database.close()


async def test_an_error_inside_a_transaction_rolls_it_back(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as session:
            await session.execute("CREATE TABLE short_lived ()")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await database.fetchval("SELECT to_regclass('short_lived')") is None


async def test_each_statement_is_timed_by_its_name(database_url: str) -> None:
    catalog, now = Catalog(), 0.0
    database = Database(database_url, max_size=1, catalog=catalog, clock=lambda: now)
    await database.open()
    good, bad = Statement("file.good", "SELECT 1"), Statement("file.bad", "SELECT 1 / 0")
    for run in (database.fetch, database.fetchrow, database.fetchval, database.execute):
        await run(good)
        await run("SELECT 1")
    async with database.transaction() as session:
        for run in (session.fetch, session.fetchrow, session.fetchval, session.execute):
            await run(good)
            await run("SELECT 1")
    for _ in range(2):
        with pytest.raises(Invalid):
            await database.fetch(bad)
    found = {name: catalog.query_seconds.labels(name).count for name in ("file.good", "file.bad", "other")}
    assert found == {"file.good": 8, "file.bad": 2, "other": 8}
    await database.close()


async def test_a_statements_time_begins_when_it_has_a_connection(database_url: str) -> None:
    catalog, now = Catalog(), 0.0
    database = Database(database_url, max_size=1, catalog=catalog, clock=lambda: now)
    await database.open()
    async with database.transaction() as session:
        waiting = asyncio.ensure_future(database.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        now = 100.0
        await session.execute("SELECT 1")
    await waiting
    seconds = catalog.query_seconds.labels("other")
    assert (seconds.count, seconds.sum) == (2, 0.0)

    async def later() -> int:
        nonlocal now
        now += 7.0
        return 1

    async with database.transaction() as session:
        await asyncio.gather(session.execute("SELECT pg_sleep(0)"), later())
    assert seconds.sum == 7.0
    await database.close()


async def test_the_commit_of_a_transaction_is_timed(database_url: str) -> None:
    catalog = Catalog()
    database = Database(database_url, catalog=catalog)
    await database.open()
    async with database.transaction() as session:
        await session.execute("SELECT 1")
    with pytest.raises(KeyError):
        async with database.transaction():
            raise KeyError
    assert catalog.query_seconds.labels("commit").count == 1
    await database.close()


@pytest.mark.parametrize("error", [asyncpg.InternalClientError("cannot switch to state 15"), ConnectionError()])
def test_a_connection_between_two_states_is_a_lost_one(error: Exception) -> None:
    assert isinstance(translate(error), Unavailable)


async def test_a_connection_between_two_states_is_dropped_and_the_next_call_goes_well(database_url: str) -> None:
    database = Database(database_url, max_size=1)
    await database.open()
    before = await database.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(Unavailable):
        async with database.transaction():
            raise asyncpg.InternalClientError("cannot switch to state 15")
    assert await database.fetchval("SELECT pg_backend_pid()") != before
    await database.close()
