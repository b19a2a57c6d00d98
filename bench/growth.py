"""Claims and ends of tasks in a small table, in a large one, and under a snapshot that another session holds open.

    python -m bench.against growth [--rounds 5] [--size 5000000] [--held 600]

Three databases on one PostgreSQL (`fsync` and `synchronous_commit` on), and taskd's own store over one connection. In
each turn 10 000 tasks are created, and then claimed and ended, 500 at a time; only that is timed. The small table has
no others. The large one has `--size` finished tasks besides. The third began small: a session has a transaction open
(REPEATABLE READ) since before tasks were created, claimed and ended there without a pause for `--held` seconds, so of
all that they were nothing can be vacuumed; it stays open while it is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from bench.against import Extent
from bench.report import Goal, Row, Sample
from bench.servers import postgres, tell
from bench.totals import FILL_STATES, FILL_TASKS, HOLDER
from taskd.domain.model import NewTask
from taskd.domain.outcome import Ending, Outcome
from taskd.store.claims import ClaimStore
from taskd.store.migrate import migrate
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore

PACKAGES = ("asyncpg",)
SMALL, LARGE, HELD = "small table", "large table", "snapshot held"
WORK, BATCH = 10_000, 500
SIZE = 5_000_000


class Table:
    """One database, and the store over it."""

    def __init__(self, url: str, work: int) -> None:
        self.url = url
        self.work = work
        self._database = Database(url, max_size=1, timeout=3600.0)
        self._tasks = TaskStore(self._database)
        self._claims = ClaimStore(self._database, follows=True)
        self._lease: UUID
        self._backend = 0

    async def open(self) -> None:
        """Make the schema, and a lease that does not end."""
        await migrate(self.url)
        await self._database.open()
        self._lease = await self._database.fetchval(HOLDER)

    async def close(self) -> None:
        await self._database.close()

    async def fill(self, rows: int) -> None:
        """Put so many finished tasks into it, and have statistics of them."""
        await self._database.execute("SET synchronous_commit = off")
        await self._database.execute(FILL_TASKS, rows)
        await self._database.execute(FILL_STATES, "done")
        await self._database.execute("VACUUM ANALYZE")
        await self._database.execute("RESET synchronous_commit")
        await self._database.execute("CHECKPOINT")

    async def create(self, number: int) -> None:
        """Make so many tasks ready."""
        draft = ("ann", NewTask("Compress the video", kind="noop", payload_json='{"name":"a.mov","size":12}'))
        for first in range(0, number, BATCH):
            await self._tasks.insert([draft] * min(BATCH, number - first))

    async def work_off(self) -> int:
        """Claim and end what is ready; return how many tasks."""
        number = 0
        while batch := await self._claims.claim(self._lease, ["noop"], BATCH):
            ends = [Outcome(task.id, task.attempt, self._lease, Ending.DONE, "null") for task in batch]
            await self._claims.finish_many(ends)
            number += len(batch)
        return number

    async def turn(self) -> Sample:
        """Return how many tasks are claimed and ended in a second."""
        await self.create(self.work)
        # One that was idle for long was closed meanwhile.
        self._backend = await self._database.fetchval("SELECT pg_backend_pid()")
        begun, ran = time.perf_counter(), self._cpu()
        number = await self.work_off()
        seconds, used = time.perf_counter() - begun, self._cpu() - ran
        if number != self.work:
            raise SystemExit(f"{number} of {self.work} tasks were claimed")
        return Sample(number / seconds, used / number * 1e6)

    def _cpu(self) -> float:
        """Return the seconds of processor time that the session's process has used (proc(5), `schedstat`)."""
        return int(Path(f"/proc/{self._backend}/schedstat").read_text().split()[0]) / 1e9


async def hold(table: Table, seconds: float) -> asyncpg.Connection:
    """Open a transaction, and have tasks made and worked off for so long; return who holds it open."""
    holder = await asyncpg.connect(table.url)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.fetchval("SELECT count(*) FROM tasks")
    until = time.monotonic() + seconds
    number = 0
    while number < table.work or time.monotonic() < until:
        await table.create(BATCH)
        number += await table.work_off()
    tell(f"growth: {number} tasks went through while the snapshot was held for {seconds:g} s")
    return holder


async def turns(cluster: Any, extent: Extent, size: int, held: float, rows: Mapping[str, Row]) -> None:
    """Measure the three, by turns; the small one stands in the rows of the two others."""
    work = 1000 if extent.mini else WORK
    admin = await asyncpg.connect(cluster.url)
    tables = {}
    for name, database in ((SMALL, "small"), (LARGE, "large"), (HELD, "held")):
        await admin.execute(f"CREATE DATABASE {database}")
        tables[name] = Table(cluster.url_of(database), work)
    for name in (LARGE, HELD):
        await tables[name].open()
    await tables[LARGE].fill(size)
    tell(f"growth: {size} finished tasks are there")
    holder = await hold(tables[HELD], held)
    for number in range(extent.rounds):
        found: dict[str, Sample] = {}
        for name, table in tables.items():
            if name == SMALL:
                await admin.execute("DROP DATABASE small WITH (FORCE)")
                await admin.execute("CREATE DATABASE small")
                await table.open()
            sample = await table.turn()
            found[name] = sample
            tell(f"{number + 1}/{extent.rounds} {name}: {sample.value:.0f}/s, {sample.cpu:.0f} µs")
            if name == SMALL:
                await table.close()
        for name, row in rows.items():
            row.add(name, found[name])
            row.add(SMALL, found[SMALL])
    await holder.close()
    for name in (LARGE, HELD):
        await tables[name].close()
    await admin.close()


def measure(extent: Extent) -> tuple[str, Sequence[Row]]:
    """Claim and end tasks in each table, by turns."""
    size = extent.size or (20_000 if extent.mini else SIZE)
    held = extent.held
    large = Row("claim and end beside many finished tasks", "tasks/s", (Goal(0.8, SMALL),))
    snapshot = Row("claim and end under a snapshot that is held", "tasks/s", (Goal(0.7, SMALL),))
    with postgres(max_wal_size="4GB") as cluster:
        asyncio.run(turns(cluster, extent, size, held, {LARGE: large, HELD: snapshot}))
    work = 1000 if extent.mini else WORK
    words = f"{extent.rounds} rounds of {work} tasks; {size} more in the large table, the snapshot held for {held:g} s."
    return words, [large, snapshot]
