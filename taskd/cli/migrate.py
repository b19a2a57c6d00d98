"""`taskd migrate`: bring a database's schema up to date."""

from __future__ import annotations

import argparse
import asyncio

from taskd import config, log
from taskd.errors import ConfigError
from taskd.store.migrate import migrate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, so that `migrate` is called as `serve` is."""
    config.add_flags(parser)


def run(asked: argparse.Namespace) -> int:
    """Apply what is missing, and say what that was."""
    settings = config.from_command_line(asked)
    log.setup(settings.log, settings.log_level)
    if settings.database_url is None:
        raise ConfigError("database_url: must be given; the embedded PostgreSQL is brought up to date by each start")
    applied = asyncio.run(migrate(settings.database_url))
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do: the schema is up to date")
    return 0
