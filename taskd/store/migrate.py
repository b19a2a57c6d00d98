"""Bring a database to the schema of this program: numbered files, each in one transaction of its own.

Two processes may start at once: each migration takes an advisory lock first and looks again whether it is still to
be done. The lock is the transaction's, so a pooler may stand between.
"""

from __future__ import annotations

import logging
from pathlib import Path

import asyncpg

from taskd.errors import StartError
from taskd.store.faults import translated
from taskd.store.pool import Row, Runner
from taskd.store.statements import Statement, load

logger = logging.getLogger("taskd.store")

_FOLDER = Path(__file__).with_name("migrations")

OLDEST_SERVER = 140000
"""PostgreSQL 14, as `server_version_num` has it."""


def migrations() -> list[Statement]:
    """Return all migrations, in their order; `name` is the file's without `.sql`."""
    files = sorted(_FOLDER.glob("*.sql"), key=lambda file: file.name)
    return [Statement(file.stem, file.read_text(encoding="utf-8")) for file in files]


async def pending(database: Runner) -> list[str]:
    """Return the names of the migrations that the database lacks."""
    if await database.fetchval(load("schema")["known"]) is None:
        return [migration.name for migration in migrations()]
    applied = {row["name"] for row in await database.fetch(load("schema")["applied"])}
    return [migration.name for migration in migrations() if migration.name not in applied]


async def migrate(url: str) -> list[str]:
    """Apply what is missing and return the names of what was applied. Safe to run twice, and at once.

    Raises:
        Unavailable: the database does not answer.
        StartError: its server is too old, or refuses a migration; the message says which.
    """
    with translated():
        connection = await asyncpg.connect(url, timeout=30, server_settings={"application_name": "taskd migrate"})
    try:
        version = connection.get_server_version()
        if version.major < OLDEST_SERVER // 10000:
            raise StartError(f"PostgreSQL {version.major} is too old: taskd needs {OLDEST_SERVER // 10000} or newer")
        applied = [migration.name for migration in migrations() if await _apply(connection, migration)]
        await _adopt(connection)
        return applied
    finally:
        await connection.close(timeout=5)


async def _apply(connection: asyncpg.Connection[Row], migration: Statement) -> bool:
    """Apply one migration unless it is applied already; return whether it was done here."""
    schema = load("schema")
    try:
        with translated():
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(schema["lock"].text)
                await connection.execute(schema["make_known"].text)
                if await connection.fetchval(schema["is_applied"].text, migration.name):
                    return False
                await connection.execute(migration.text)
                await connection.execute(schema["note"].text, migration.name)
    except asyncpg.PostgresError as error:
        raise StartError(f"migration {migration.name} failed: {error}") from error
    logger.info("applied migration %s", migration.name)
    return True


async def _adopt(connection: asyncpg.Connection[Row]) -> None:
    """Make a database at home that was dumped in another cluster.

    Its transaction ids mean nothing here. Greater ones would keep a task's events out of the log's readable part
    until this cluster has counted as far, so they go, with the log that they order.
    """
    schema = load("schema")
    with translated():
        if await connection.fetchval(schema["is_at_home"].text):
            return
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(schema["lock"].text)
            if not await connection.fetchval(schema["is_at_home"].text):
                await connection.execute(schema["adopt"].text)
                logger.warning("this database comes from another cluster: its event log begins anew")


async def check(database: Runner) -> None:
    """Refuse a database whose migrations are not all applied.

    Raises:
        StartError: it lacks some; the message names the command that applies them.
        Unavailable: it does not answer.
    """
    missing = await pending(database)
    if missing:
        raise StartError(f"the database lacks {', '.join(missing)}: run `taskd migrate`")
