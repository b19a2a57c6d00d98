"""`taskd migrate`: bring a database's schema up to date."""

from __future__ import annotations

import argparse
import asyncio

from taskd import config, log
from taskd.errors import ConfigError
from taskd.store.migrate import migrate
from taskd.store.pool import Database
from taskd.store.search import configure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, so that `migrate` is called as `serve` is."""
    config.add_flags(parser)


def run(asked: argparse.Namespace) -> int:
    """Apply what is missing, and say what that was."""
    settings = config.from_command_line(asked)
    log.setup(settings.log, settings.log_level)
    if settings.database_url is None:
        raise ConfigError("database_url: must be given; the embedded PostgreSQL is brought up to date by each start")
    # Past a pooler, as the migrations of a start.
    url = settings.database_listen_url or settings.database_url
    done = asyncio.run(_migrate(url, settings.search_config))
    print("\n".join(done) or "nothing to do: the schema is up to date")
    return 0


async def _migrate(url: str, search_config: str) -> list[str]:
    done = [f"applied {name}" for name in await migrate(url)]
    # A whole table may be rewritten: that takes as long as it takes.
    database = Database(url, max_size=1, timeout=86_400)
    try:
        await database.open()
        before, now, _ = await configure(database, search_config, rebuild=True)
        return done if now == before else [*done, f"made the search documents anew: {now} in place of {before}"]
    finally:
        await database.close()
