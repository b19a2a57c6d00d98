"""Migrations, and the schema they add up to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from taskd.errors import StartError, Unavailable
from taskd.store.migrate import check, migrate, migrations, pending
from taskd.store.pool import Database
from tests.store.conftest import Maker

SCHEMA = Path(__file__).parents[2] / "schema.sql"

CATALOG = """
SELECT 'relation', c.relname, c.relkind::text, c.reloptions::text, pg_get_viewdef(c.oid),
    pg_get_expr(relpartbound, c.oid)
FROM pg_class c WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text,
    row_number() OVER (PARTITION BY attrelid ORDER BY attnum) || coalesce(pg_get_expr(adbin, adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, NULL, NULL
FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), NULL, NULL
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), NULL, NULL
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', proname, pg_get_functiondef(oid), NULL, NULL, NULL
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'sequence', sequencename, cache_size::text, start_value::text, increment_by::text, cycle::text
FROM pg_sequences WHERE schemaname = 'public'
ORDER BY 1, 2, 3, 4, 5, 6
"""


async def catalog(url: str) -> list[tuple[str | None, ...]]:
    database = Database(url)
    await database.open()
    rows = [tuple(row) for row in await database.fetch(CATALOG)]
    await database.close()
    return rows


@pytest.fixture
async def empty_url(database: Database, database_url: str) -> AsyncIterator[str]:
    """A database without anything, beside the test's own."""
    name = f"empty_{uuid4().hex}"
    await database.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    await database.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_migrations_add_up_to_the_schema(database_url: str, empty_url: str) -> None:
    database = Database(empty_url)
    await database.open()
    await database.execute(SCHEMA.read_text(encoding="utf-8"))
    await database.close()
    assert await catalog(empty_url) == await catalog(database_url)


async def test_starts_at_once_migrate_once(empty_url: str) -> None:
    names = [migration.name for migration in migrations()]
    answers = await asyncio.gather(*(migrate(empty_url) for _ in range(6)))
    assert sorted(name for answer in answers for name in answer) == sorted(names)
    assert await migrate(empty_url) == []


async def test_pending_names_what_is_missing(empty_url: str) -> None:
    database = Database(empty_url)
    await database.open()
    assert await pending(database) == [migration.name for migration in migrations()]
    with pytest.raises(StartError, match="taskd migrate"):
        await check(database)
    await migrate(empty_url)
    assert await pending(database) == []
    await check(database)
    await database.close()


async def test_a_migration_that_fails_leaves_nothing_and_is_named(empty_url: str) -> None:
    database = Database(empty_url)
    await database.open()
    await database.execute("CREATE TABLE idempotency ()")
    with pytest.raises(StartError, match="0001_core"):
        await migrate(empty_url)
    assert await database.fetchval("SELECT to_regclass('tasks')") is None
    await database.execute("DROP TABLE idempotency")
    assert await migrate(empty_url)
    await database.close()


async def test_a_database_that_was_dumped_elsewhere_is_made_at_home(
    database: Database, database_url: str, make: Maker
) -> None:
    task = await make.one()
    epoch = await database.fetchval("SELECT log_epoch()")
    await migrate(database_url)
    assert await database.fetchval("SELECT log_epoch()") == epoch
    await database.execute("ALTER TABLE task_states DISABLE TRIGGER USER")
    await database.execute("UPDATE task_states SET event_xid = '4611686018427387904'")
    await database.execute("ALTER TABLE task_states ENABLE TRIGGER USER")
    await database.execute("UPDATE meta SET system_identifier = 1")
    assert await migrate(database_url) == []
    assert await database.fetchval("SELECT log_epoch()") != epoch
    assert await database.fetchval("SELECT count(*) FROM events") == 0
    rows = await database.fetch("SELECT event_xid FROM task_states WHERE task_id = $1", task.id)
    assert [row["event_xid"] for row in rows] == [0]


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await migrate(f"postgresql://x@/x?host={tmp_path}")
