"""What the numbers of tasks by status cost: the queue with another version of this tree, and the reads themselves.

    python -m bench.totals DATABASE_URL [--rows 1000000] [--work 20000] [--rounds 5] [--before DIRECTORY]

- With `--before`, a checkout of another version: two databases with `--rows` finished tasks each, one made by each
  version; then `--rounds` times, by turns, `--work` tasks are created, claimed and finished, 100 at a time, by the
  version's own program. Printed: microseconds of each per task, and those of the server's processor alone (it runs on
  this machine), medians over the rounds.
- `at` with 10 000 events behind the mark, a fold of 100 000, and `oldest_ready` with `--rows` ready tasks, before and
  after a tenth of them was claimed, vacuum kept off.

The figures of a run that a decision stands on are in `docs/decisions/0004-counts.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from taskd.domain.event import EventKey
from taskd.store.migrate import migrate
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.totals import TotalsStore

HERE = Path(__file__).parents[1]

FILL_TASKS = """
    INSERT INTO tasks (id, owner, kind, title, description, payload, created_at)
    SELECT new_task_id(at, n % 4096), 'user' || n % 1000, 'old', 'task number ' || n, 'some words', '{"n": 1}', at
    FROM (SELECT n, clock_timestamp() - make_interval(secs => $1 - n) AS at FROM generate_series(1, $1::integer) n) t
"""
FILL_STATES = """
    INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                             updated_at, finished_at, event, event_xid, ready_at)
    SELECT id, owner, kind, created_at, $1, 0, created_at, 5, 300, created_at,
           CASE WHEN $1 = 'done' THEN created_at END, 'created', pg_current_xact_id(), created_at
    FROM tasks
"""
CLAIM_OLDEST = """
    UPDATE task_states SET was = status, status = 'running', lease = gen_random_uuid(), version = version + 1,
        event = 'started'
    WHERE task_id IN (SELECT task_id FROM task_states WHERE status = 'new' AND lease IS NULL
                      ORDER BY ready_at LIMIT $1)
"""
HOLDER = "INSERT INTO leases VALUES (gen_random_uuid(), 'all', 'bench', 1, now(), now(), 'infinity') RETURNING lease"

ROUND = """
import asyncio, json, sys, time
from taskd.domain.model import NewTask
from taskd.domain.outcome import Ending, Outcome
from taskd.store.claims import ClaimStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore

async def main(url, lease, work):
    database = Database(url, max_size=1)
    await database.open()
    tasks, claims = TaskStore(database), ClaimStore(database)
    drafts = [("user1", NewTask("a title of four words", description="some words")) for _ in range(100)]
    backend = await database.fetchval("SELECT pg_backend_pid()")
    spent = {"create": 0.0, "claim": 0.0, "finish": 0.0, "create_cpu": 0.0, "claim_cpu": 0.0, "finish_cpu": 0.0}
    def cpu():
        with open(f"/proc/{backend}/schedstat") as file:
            return int(file.read().split()[0])
    async def timed(name, call):
        begun, ran = time.perf_counter(), cpu()
        answer = await call
        spent[name] += (time.perf_counter() - begun) / work * 1e6
        spent[name + "_cpu"] += (cpu() - ran) / work / 1e3
        return answer
    for _ in range(work // 100):
        await timed("create", tasks.insert(drafts))
    while batch := await timed("claim", claims.claim(lease, ["default"], 100)):
        ends = [Outcome(task.id, task.attempt, lease, Ending.DONE, "1") for task in batch]
        await timed("finish", claims.finish_many(ends))
    wal = await database.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    await database.close()
    print(json.dumps(spent | {"wal": float(wal)}))

asyncio.run(main(sys.argv[1], __import__("uuid").UUID(sys.argv[2]), int(sys.argv[3])))
"""


async def _run(tree: Path, code: str, *args: str) -> str:
    """Run a program with the taskd of one tree, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *args, cwd=tree, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return printed.decode()


async def _make(db: asyncpg.Connection, url: str, name: str) -> str:
    await db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await db.execute(f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _fill(url: str, rows: int, status: str) -> None:
    made = await asyncpg.connect(url, command_timeout=3600)
    await made.execute("SET synchronous_commit = off")
    await made.execute(FILL_TASKS, rows)
    await made.execute(FILL_STATES, status)
    await made.execute("VACUUM ANALYZE")
    await made.execute("CHECKPOINT")
    await made.close()


async def compare(db: asyncpg.Connection, url: str, before: Path, rows: int, work: int, rounds: int) -> None:
    """Print what creating, claiming and finishing cost with two versions, taking turns."""
    trees = {"before": before, "after": HERE}
    urls, leases = {}, {}
    for name, tree in trees.items():
        urls[name] = await _make(db, url, f"bench_{name}")
        code = "import asyncio, sys; from taskd.store.migrate import migrate; asyncio.run(migrate(sys.argv[1]))"
        await _run(tree, code, urls[name])
        await _fill(urls[name], rows, "done")
        made = await asyncpg.connect(urls[name])
        leases[name] = str(await made.fetchval(HOLDER))
        await made.close()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(rounds + 1):
        for name in sorted(trees, reverse=bool(number % 2)):
            wal = await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            spent = json.loads(await _run(trees[name], ROUND, urls[name], leases[name], str(work)))
            spent["wal"] = (spent["wal"] - float(wal)) / work
            # The first round finds caches cold.
            found[name] += [spent] if number else []
    for name in trees:
        medians = {part: statistics.median(one[part] for one in found[name]) for part in found[name][0]}
        both = statistics.median(1e6 / (one["claim"] + one["finish"]) for one in found[name])
        words = "  ".join(f"{part} {value:6.1f}" for part, value in medians.items())
        print(f"{name:7} µs per task: {words} (bytes)  claim+finish {both:6.0f}/s", flush=True)
        print("        claim+finish/s:", *(f"{1e6 / (one['claim'] + one['finish']):.0f}" for one in found[name]))


async def _milliseconds(call: Callable[[], Awaitable[object]], times: int = 20) -> str:
    """Return the first and the median time of a call."""
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        await call()
        spent.append((time.perf_counter() - begun) * 1000)
    return f"first {spent[0]:8.2f} ms, median {statistics.median(spent):8.2f} ms"


async def reads(db: asyncpg.Connection, url: str, rows: int) -> None:
    """Print what the questions cost."""
    made = await _make(db, url, "bench_reads")
    await migrate(made)
    database = Database(made, timeout=3600.0)
    await database.open()
    await database.execute("ALTER TABLE task_states SET (autovacuum_enabled = off)")
    totals = TotalsStore(database)
    sweep = SweepStore(database, retention_days=30, event_retention_hours=24)

    async def end() -> EventKey:
        xmin = await database.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return EventKey(xmin, 0)

    await _fill(made, rows, "new")
    print("fold of", rows, await _milliseconds(sweep.fold_totals, 1), flush=True)
    print("oldest_ready of", rows, await _milliseconds(totals.oldest_ready), flush=True)
    few, many = rows // 100, rows // 10
    await database.execute(CLAIM_OLDEST, few)
    key = await end()
    print("at, with", few, "events", await _milliseconds(lambda: totals.at(key)), flush=True)
    await sweep.fold_totals()
    print("at, with none", await _milliseconds(lambda: totals.at(key)), flush=True)
    async with database.transaction() as held:
        await held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await held.fetchval("SELECT count(*) FROM task_totals")
        await database.execute(CLAIM_OLDEST, many)
        held_back = await _milliseconds(totals.oldest_ready)
        print("oldest_ready,", many, "older ones claimed, their versions held by a snapshot", held_back, flush=True)
    print("… not held, not vacuumed", await _milliseconds(totals.oldest_ready), flush=True)
    print("fold of", many, await _milliseconds(sweep.fold_totals, 1), flush=True)
    await database.close()


async def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path)
    asked = parser.parse_args()
    db = await asyncpg.connect(asked.url, command_timeout=3600)
    print(await db.fetchval("SELECT version()"))
    print({n: await db.fetchval(f"SHOW {n}") for n in ("shared_buffers", "fsync", "max_wal_size")}, vars(asked))
    if asked.before:
        await compare(db, asked.url, asked.before, asked.rows, asked.work, asked.rounds)
    await reads(db, asked.url, asked.rows)
    await db.close()


if __name__ == "__main__":
    asyncio.run(main())
