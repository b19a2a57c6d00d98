"""The queue beside PgQueuer and Procrastinate, and beside what the database alone can do.

    python -m bench.against queue [--rounds 5] [--size 100000]

In each turn a queue gets a new database on the same PostgreSQL (`fsync` and `synchronous_commit` on), with all tasks in
it, vacuumed; then one process works them off. An observer counts the tasks whose end is committed, ever closer towards
the end. The time is from the first claim to the answer that all are there, both by the database's clock. All keep
finished tasks, or a log of them; taskd keeps its history and event log besides, which is looked at afterwards.

The floor is pgbench with the statements of taskd's own store: it claims and ends as many tasks at a time as a worker
does, with nothing between.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from bench.against import Extent
from bench.report import TASKD, Goal, Row, Sample
from bench.servers import Server, free_port, postgres, program, python, tell
from taskd.domain.model import NewTask
from taskd.store.migrate import migrate
from taskd.store.passed import FIRST, LAST, NO_ID
from taskd.store.pool import Database
from taskd.store.statements import load
from taskd.store.tasks import TaskStore

PACKAGES = ("asyncpg", "uvloop", "pgqueuer", "procrastinate", "psycopg", "psycopg-pool")
PGQUEUER, LARGER, PROCRASTINATE, FLOOR = "PgQueuer", "PgQueuer, batches of 100", "Procrastinate", "pgbench"
GOALS = (Goal(3, PGQUEUER), Goal(3, LARGER), Goal(10, PROCRASTINATE), Goal(0.5, FLOOR))

CONCURRENCY = 2000
"""`TASKD_CONCURRENCY`: tasks that do nothing but wait for the database want many slots."""

BATCH, CLIENTS = 500, 2
"""What pgbench claims at once, as a worker with free slots does, and how many do so."""

HOLDER = "00000000-0000-4000-8000-000000000001"
MINI = {PROCRASTINATE: 50}
"""Tasks of the miniature for who is slow."""


@dataclass(frozen=True)
class Contender:
    """One queue.

    Args:
        fill: puts so many tasks into a new database.
        work: returns what works them off.
        begun: the first claim.
        ended: how many tasks have ended.
        kept: rows of the history of each task at the least.
        history: how many there are.
    """

    name: str
    fill: Callable[[str, int], Awaitable[None]]
    work: Callable[[str, int], Server]
    begun: str
    ended: str
    history: str
    kept: int


async def fill_taskd(url: str, number: int) -> None:
    """Create tasks as the server does for its clients, a thousand at a time."""
    await migrate(url)
    database = Database(url, max_size=1)
    await database.open()
    tasks = TaskStore(database)
    draft = ("ann", NewTask("Compress the video", kind="noop", payload_json='{"name":"a.mov","size":12}'))
    for first in range(0, number, 1000):
        await tasks.insert([draft] * min(1000, number - first))
    await database.close()


async def fill_floor(url: str, number: int) -> None:
    """As for taskd, with a lease that does not end."""
    await fill_taskd(url, number)
    connection = await asyncpg.connect(url)
    await connection.execute(f"INSERT INTO leases VALUES ('{HOLDER}', 'all', 'bench', 1, now(), now(), 'infinity')")
    await connection.close()


def filled_by(module: str) -> Callable[[str, int], Awaitable[None]]:
    """Return what has a peer fill its own tables."""

    async def fill(url: str, number: int) -> None:
        peer = Server(module, python("-m", module, "fill", str(number)), {"DATABASE_URL": url})
        log = peer.launch()
        assert peer.process is not None
        if await asyncio.to_thread(peer.process.wait):
            log.seek(0)
            raise SystemExit(f"{module} could not fill its tables:\n{log.read().decode()}")

    return fill


def taskd(url: str, number: int) -> Server:
    """Return a worker process as its users run it."""
    words = ["-m", "taskd", "serve", "--role", "worker", "--http", f"127.0.0.1:{free_port()}", "--database-url", url]
    settings = ["--handlers", "bench.noop", "--concurrency", str(CONCURRENCY), "--grpc", "off"]
    return Server(TASKD, python(*words, *settings, "--log-level", "warning"))


def peer(name: str, module: str, *words: str) -> Callable[[str, int], Server]:
    """Return what makes a peer's worker."""
    return lambda url, number: Server(name, python("-m", module, "work", *words), {"DATABASE_URL": url})


def pgqueuer(name: str, batch: int) -> Contender:
    """Return PgQueuer with batches of so many jobs."""
    module = "bench.peers.queue_pgqueuer"
    return Contender(
        name, filled_by(module), peer(name, module, str(batch)),
        "SELECT min(created) FROM pgqueuer_log WHERE status = 'picked'",
        "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'", "SELECT count(*) FROM pgqueuer_log", 3,
    )  # fmt: skip


def floor(url: str, number: int) -> Server:
    """Return pgbench with enough claims for all."""
    script = tempfile.NamedTemporaryFile("w", suffix=".sql", delete=False)  # noqa: SIM115 - pgbench reads it
    with script:
        script.write(floor_script())
    turns = -(-number // BATCH // CLIENTS) + 1
    options = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-t", str(turns), "-f", script.name, url]
    return Server(FLOOR, [program("pgbench"), *options])


def floor_script() -> str:
    """Return taskd's claim and finish for pgbench.

    It has no rows, only variables: the claim's last SELECT gathers what the finish is to be given. All else stays.
    """
    claim, finish = load("claims")["claim"].text, load("claims")["finish"].text
    body, found, _ = claim.rpartition("\nSELECT t.id")
    if not found:
        raise SystemExit("the claim no longer ends as it did")
    whole = {"4": f"'{{{FIRST}}}'", "5": f"'{{{NO_ID}}}'", "6": f"'{{{LAST}}}'"}
    given = {"1": f"'{HOLDER}'::uuid", "2": "ARRAY['noop']", "3": str(BATCH), **whole, "7": str(BATCH)}
    gathered = "SELECT coalesce(array_agg(task_id), '{}') ids, coalesce(array_agg(attempt), '{}') attempts FROM claimed"
    ends = {
        "1": ":ids", "2": ":attempts", "3": f"array_fill('{HOLDER}'::uuid, ARRAY[cardinality(:ids::uuid[])])",
        "4": "array_fill('done'::text, ARRAY[cardinality(:ids::uuid[])])",
        "5": "array_fill('null'::text, ARRAY[cardinality(:ids::uuid[])])",
        **{str(n): "array_fill(NULL::text, ARRAY[cardinality(:ids::uuid[])])" for n in (6, 7)},
        "8": "array_fill(0::float8, ARRAY[cardinality(:ids::uuid[])])",
    }  # fmt: skip
    return f"{_filled(body, given)}\n{gathered}\n\\gset\n{_filled(finish, ends)};\n"


def _filled(statement: str, values: Mapping[str, str]) -> str:
    plain = re.sub(r"--.*", "", statement)
    return re.sub(r"\$(\d+)", lambda found: values[found[1]], plain)


CONTENDERS = (
    Contender(
        TASKD, fill_taskd, taskd, "SELECT min(started_at) FROM task_states",
        "SELECT count(*) FROM task_states WHERE status = 'done'", "SELECT count(*) FROM events", 3,
    ),
    pgqueuer(PGQUEUER, 25),
    pgqueuer(LARGER, 100),
    Contender(
        PROCRASTINATE, filled_by("bench.peers.queue_procrastinate"),
        peer(PROCRASTINATE, "bench.peers.queue_procrastinate"),
        "SELECT min(at) FROM procrastinate_events WHERE type = 'started'",
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        "SELECT count(*) FROM procrastinate_events", 3,
    ),
    Contender(
        FLOOR, fill_floor, floor, "SELECT min(started_at) FROM task_states",
        "SELECT count(*) FROM task_states WHERE status = 'done'", "SELECT count(*) FROM events", 3,
    ),
)  # fmt: skip


@dataclass
class Observer:
    """Looks from outside at how far a queue is."""

    connection: asyncpg.Connection
    contender: Contender
    server: Server
    idle_cpu: float = field(default=0.0, init=False)

    async def wait(self, number: int, patience: float = 3600.0) -> float:
        """Return the seconds from the first claim until all ends are committed."""
        until = time.monotonic() + patience
        seen, seen_at = 0, time.monotonic()
        while True:
            found, now = await self.connection.fetchrow(f"SELECT ({self.contender.ended}), clock_timestamp()")
            if found >= number:
                return (now - await self.connection.fetchval(self.contender.begun)).total_seconds()
            self._check(found, until)
            at = time.monotonic()
            speed, seen, seen_at = (found - seen) / max(at - seen_at, 1e-9), found, at
            # A tenth of what is left by the present speed: some thirty looks in all, the last ones close together.
            await asyncio.sleep(min(1.0, max(0.01, (number - found) / speed / 10)) if speed else 0.02)

    def _check(self, found: int, until: float) -> None:
        if not found and self.server.runs:
            self.idle_cpu = self.server.cpu()
        if time.monotonic() > until or self.server.failed:
            raise SystemExit(f"{self.contender.name} has ended {found} tasks, and goes no further")


async def turn(cluster: Any, contender: Contender, number: int) -> Sample:
    """Have one queue work off so many tasks."""
    admin = await asyncpg.connect(cluster.url)
    await admin.execute("DROP DATABASE IF EXISTS turn WITH (FORCE)")
    await admin.execute("CREATE DATABASE turn")
    url = cluster.url_of("turn")
    await contender.fill(url, number)
    connection = await asyncpg.connect(url, command_timeout=600)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    server = contender.work(url, number)
    observer = Observer(connection, contender, server)
    try:
        server.launch()
        seconds = await observer.wait(number)
        used = server.cpu() - observer.idle_cpu if server.runs else 0.0
        kept = await connection.fetchval(contender.history)
        if kept < number * contender.kept:
            raise SystemExit(f"{contender.name} kept {kept} rows of history for {number} tasks")
    finally:
        server.stop()
        await connection.close()
        await admin.close()
    return Sample(number / seconds, used / number * 1e6 if used else None)


@contextmanager
def running() -> Iterator[Any]:
    """Start the PostgreSQL that all have in turn."""
    with postgres(max_wal_size="4GB") as cluster:
        yield cluster


def measure(extent: Extent, contenders: Sequence[Contender] = CONTENDERS) -> tuple[str, list[Row]]:
    """Let each queue work off its tasks, by turns."""
    size = extent.size or (2_000 if extent.mini else 100_000)
    row = Row("tasks that do nothing, from ready to committed result", "tasks/s", GOALS, (FLOOR,))
    with running() as cluster:
        for number in range(extent.rounds):
            for contender in contenders:
                count = MINI.get(contender.name, size) if extent.mini else size
                sample = asyncio.run(turn(cluster, contender, count))
                row.add(contender.name, sample)
                tell(f"{number + 1}/{extent.rounds} {contender.name}: {sample.value:.0f}/s, {sample.cpu or 0:.0f} µs")
    words = f"{extent.rounds} rounds of {size} tasks; `TASKD_CONCURRENCY={CONCURRENCY}`, pgbench takes {BATCH} at once."
    return words, [row]
