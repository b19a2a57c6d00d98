"""A queue on Procrastinate: its psycopg connector, concurrent async jobs in one worker, on uvloop.

    python -m bench.peers.queue_procrastinate fill 100000
    python -m bench.peers.queue_procrastinate work

Finished jobs stay, as they do by default. The pool is as large as the concurrency that shares it needs.
"""

from __future__ import annotations

import logging
import os
import sys

import uvloop
from procrastinate import App, PsycopgConnector

CONCURRENCY, CONNECTIONS = 30, 20

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=4, max_size=CONNECTIONS))


@app.task(name="noop")
async def noop() -> None:
    """Do nothing."""


async def fill(number: int) -> None:
    """Install it, and defer so many jobs."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, number, 1000):
            await noop.batch_defer_async(*[{}] * min(1000, number - first))


async def work() -> None:
    """Work until the process ends."""
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(fill(int(sys.argv[2])) if sys.argv[1] == "fill" else work())
