"""The numbers of tasks begin right, whatever is going on when they begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from taskd.domain.model import Status
from taskd.store.migrate import migrate, migrations
from taskd.store.pool import Database, Runner
from taskd.store.statements import load
from taskd.store.sweep import SweepStore
from taskd.store.totals import TotalsStore
from tests.store.conftest import Maker
from tests.store.replay import Replay, counted, filled
from tests.waiting import eventually

# As the release before wrote them: without a word on what the status was.
CREATE = """
    INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                             updated_at, event, event_xid)
    SELECT gen_random_uuid(), 'ann', 'k', clock_timestamp(), 'new', 0, clock_timestamp(), 5, 300, clock_timestamp(),
           'created', pg_current_xact_id()
    RETURNING task_id
"""
MOVE = """
    UPDATE task_states s SET status = $2, event = 'updated', version = s.version + 1, updated_at = clock_timestamp(),
        finished_at = CASE WHEN $2 = 'cancelled' THEN clock_timestamp() END,
        event_xid = greatest(s.event_xid, pg_current_xact_id())
    WHERE s.task_id = $1
"""


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[Database]:
    """A database of the release before the numbers."""
    database = Database(empty_database_url)
    await database.open()
    core = migrations()[0]
    await database.execute(core.text)
    await database.execute(load("schema")["make_known"])
    await database.execute(load("schema")["note"], core.name)
    yield database
    await database.close()


async def create(runner: Runner) -> UUID:
    found: UUID = await runner.fetchval(CREATE)
    return found


async def expect_right(database: Database) -> None:
    """Fail unless the numbers are those of the log from the mark on, and the last those counted."""
    totals, replay = TotalsStore(database), await Replay.of(database)
    for key in replay.keys:
        found = await totals.at(key)
        assert found.counts == replay.at(found.key), key
    assert found.counts == await counted(database)


async def test_a_store_in_use_is_counted_once(old: Database) -> None:
    made = [await create(old) for _ in range(5)]
    await old.execute(MOVE, made[0], "scheduled")
    await old.execute("DELETE FROM task_states WHERE task_id = $1", made[1])
    await migrate(old.url)
    await expect_right(old)
    assert await counted(old) == filled({Status.NEW: 3, Status.SCHEDULED: 1})


async def test_two_transactions_open_across_the_migration_and_folds(old: Database) -> None:
    sweep = SweepStore(old, retention_days=30, event_retention_hours=24)
    made = [await create(old) for _ in range(4)]
    async with old.transaction() as first, old.transaction() as second:
        # They have their ids, and have touched no task yet.
        xid = await first.fetchval("SELECT pg_current_xact_id()::text::bigint")
        await second.fetchval("SELECT pg_current_xact_id()::text::bigint")
        # Committed before the migration, and behind what the two will write.
        await create(old)
        await old.execute(MOVE, made[0], "scheduled")
        await old.execute("DELETE FROM task_states WHERE task_id = $1", made[1])
        await migrate(old.url)
        assert await old.fetchval("SELECT mark_xid::text::bigint FROM task_totals") <= xid
        await first.execute(MOVE, made[0], "cancelled")
        await first.execute(MOVE, made[2], "scheduled")
        await second.execute(MOVE, await create(second), "cancelled")
        await old.execute(MOVE, await create(old), "scheduled")
        await sweep.fold_totals()
        await expect_right(old)
        await first.execute(MOVE, made[2], "new")
    await expect_right(old)
    await eventually(sweep.fold_totals)
    await expect_right(old)


async def test_an_open_change_of_a_task_makes_the_migration_wait(old: Database) -> None:
    made = await create(old)

    async def waits() -> bool:
        here = "wait_event_type = 'Lock' AND application_name = 'taskd migrate' AND datname = current_database()"
        return bool(await old.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {here}"))

    async with old.transaction() as session:
        await session.execute(MOVE, made, "scheduled")
        migration = asyncio.ensure_future(migrate(old.url))
        await eventually(waits)
        await create(session)
    await migration
    await expect_right(old)


async def test_in_a_database_from_another_cluster_the_numbers_begin_anew(
    database: Database, make: Maker, database_url: str
) -> None:
    await make.many(3)
    await database.execute("UPDATE task_totals SET new = 77, mark_xid = '4611686018427387904'")
    await database.execute("UPDATE meta SET system_identifier = 1")
    await migrate(database_url)
    await make.one()
    last = (await Replay.of(database)).keys[-1]
    assert await TotalsStore(database).at(last) == (last, filled({Status.NEW: 4}))
