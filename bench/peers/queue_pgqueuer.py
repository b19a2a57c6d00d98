"""A queue on PgQueuer: asyncpg, uvloop, managers with a connection of their own, as its own benchmark has it.

    python -m bench.peers.queue_pgqueuer fill 100000
    python -m bench.peers.queue_pgqueuer work 25

Five managers are those of its benchmark; the batch of 25 is that of its guide to tuning, which asks for more where jobs
are short, and for the settings of autovacuum that it installs.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

MANAGERS = 5


async def connect() -> AsyncpgDriver:
    """Return a connection as PgQueuer takes it."""
    return AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"]))


async def fill(number: int) -> None:
    """Install it, and enqueue so many jobs."""
    queries = Queries(await connect())
    await queries.install()
    await queries.optimize_autovacuum()
    for first in range(0, number, 1000):
        count = min(1000, number - first)
        await queries.enqueue(["noop"] * count, [b"{}"] * count, [0] * count)


async def manager(batch: int) -> None:
    """Work until the process ends."""
    queuer = PgQueuer(await connect())

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        """Do nothing."""

    await queuer.run(batch_size=batch)


async def work(batch: int) -> None:
    """Work with all managers until the process ends."""
    await asyncio.gather(*(manager(batch) for _ in range(MANAGERS)))


if __name__ == "__main__":
    uvloop.run((fill if sys.argv[1] == "fill" else work)(int(sys.argv[2])))
