"""How long a search takes among many tasks, as the store is asked by every transport.

    python -m bench.search [DATABASE_URL] [--rows 1000000] [--times 200] [--write]

Fills the database (without one: a PostgreSQL of its own in a temporary directory) with `--rows` finished tasks, nearly
all of one owner, by a fixed seed (`bench.texts`), unless it has as many already, and then asks each kind of question
`--times` times, each time for other words where there are others. `--write` puts the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

import asyncpg

from bench.texts import ENGLISH, FREQUENT, OLD, PHRASE, RUSSIAN, Texts, rare
from taskd.domain.model import Status
from taskd.domain.search import SearchQuery
from taskd.store.migrate import migrate
from taskd.store.pool import Database
from taskd.store.search import SearchStore

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
OWNER = "bench"
BATCH = 20_000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

STATES = """
    INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                             updated_at, finished_at, event, event_xid, ready_at)
    SELECT id, owner, kind, created_at, 'done', 0, created_at, 5, 300, created_at, created_at, 'created', '3',
           created_at
    FROM tasks
"""

QUESTIONS: dict[str, Callable[[int], SearchQuery]] = {
    "a rare word (in about 10 tasks)": lambda n: SearchQuery(OWNER, rare(n * 487 % 100_000)),
    "a word in 10 % of all tasks": lambda n: SearchQuery(OWNER, FREQUENT),
    "a common word": lambda n: SearchQuery(OWNER, [*RUSSIAN, *ENGLISH][n % 200]),
    "a phrase of three words": lambda n: SearchQuery(OWNER, f'"{" ".join(PHRASE)}"'),
    "two common words": lambda n: SearchQuery(OWNER, f"{RUSSIAN[n % 100]} {ENGLISH[n * 7 % 100]}"),
    "the beginning of a rare word": lambda n: SearchQuery(OWNER, rare(n * 487 % 100_000)[:-2], prefix=True),
    "a word in 10 %, of a kind that has no tasks": lambda n: SearchQuery(OWNER, FREQUENT, kind="none"),
    "a word in 10 %, of a status that all tasks have": lambda n: SearchQuery(OWNER, FREQUENT, statuses=(Status.DONE,)),
    "a word in 10 %, all in the oldest tasks": lambda n: SearchQuery(OWNER, OLD),
    "a word in 10 %, of an owner of a thousandth": lambda n: SearchQuery(f"{OWNER}{n % 10}", FREQUENT),
}


def rows(number: int) -> Iterator[tuple[UUID, str, str, str, str, str, datetime]]:
    """Yield the tasks to be stored."""
    for n, (title, description) in enumerate(islice(Texts(), number)):
        at = BEGIN + timedelta(seconds=n)
        milliseconds = round(at.timestamp() * 1000)
        task_id = UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | n)
        if n < number // 10:
            title = f"{title} {OLD}"
        # Ten owners have a thousandth each, one has the rest.
        owner = f"{OWNER}{n % 1000}" if n % 1000 < 10 else OWNER
        yield task_id, owner, "old", title, description, '{"n":1}', at


async def fill(url: str, number: int) -> None:
    """Store the tasks, unless they are there."""
    await migrate(url)
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT count(*) FROM tasks") == number:
            return
        await connection.execute("TRUNCATE tasks, task_states; ALTER TABLE task_states DISABLE TRIGGER USER")
        await connection.execute("SET maintenance_work_mem = '256MB'; DROP INDEX tasks_document")
        columns = ["id", "owner", "kind", "title", "description", "payload", "created_at"]
        made = rows(number)
        while batch := list(islice(made, BATCH)):
            await connection.copy_records_to_table("tasks", records=batch, columns=columns)
        await connection.execute(STATES)
        await connection.execute("CREATE INDEX tasks_document ON tasks USING gin (document)")
        await connection.execute("ALTER TABLE task_states ENABLE TRIGGER USER")
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def measure(url: str, times: int) -> Iterator[tuple[str, float, float, float, str]]:
    """Return a row for each question: its name, p50, p95 and longest in milliseconds, and what was found."""
    database = Database(url, max_size=1)
    await database.open()
    store = SearchStore(database)
    found = []
    try:
        for name, ask in QUESTIONS.items():
            await store.search(ask(0))
            took, totals = [], []
            for number in range(times):
                begun = time.perf_counter()
                page = await store.search(ask(number))
                took.append((time.perf_counter() - begun) * 1000)
                totals.append(page.total)
            cuts = statistics.quantiles(took, n=20)
            total = f"{round(statistics.median(totals))}{'' if page.exact else ' or more'}"
            found.append((name, statistics.median(took), cuts[-1], max(took), total))
            print(f"{name:52} p50 {found[-1][1]:7.1f}  p95 {cuts[-1]:7.1f}  max {max(took):7.1f} ms  found {total}")
    finally:
        await database.close()
    return iter(found)


async def run(url: str, asked: argparse.Namespace) -> None:
    """Fill, measure, and write if asked to."""
    begun = time.perf_counter()
    await fill(url, asked.rows)
    print(f"filled in {time.perf_counter() - begun:.0f} s")
    table = await measure(url, asked.times)
    if asked.write:
        connection = await asyncpg.connect(url)
        server = await connection.fetchval("SHOW server_version")
        await connection.close()
        write(list(table), asked, server)


def write(table: list[tuple[str, float, float, float, str]], asked: argparse.Namespace, server: str) -> None:
    """Put the figures between the marks of the page."""
    lines = [
        f"{asked.rows} tasks, {asked.times} questions of each kind, a page of 50, milliseconds; PostgreSQL {server},"
        f" Python {platform.python_version()}, {os.cpu_count()} cores.\n",
        "| question | p50 | p95 | longest | found |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {name} | {p50:.1f} | {p95:.1f} | {most:.1f} | {total} |" for name, p50, p95, most, total in table),
    ]
    text = PAGE.read_text("utf-8")
    mark = "<!-- bench.search -->"
    new = re.sub(f"{mark}.*?{mark}", lambda _: f"{mark}\n" + "\n".join(lines) + f"\n{mark}", text, flags=re.DOTALL)
    PAGE.write_text(new, "utf-8")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Measure searches.")
    parser.add_argument("url", nargs="?")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.url is not None:
        asyncio.run(run(asked.url, asked))
        return
    # Imported only without a database: a server of the tests', with settings as on a small machine.
    from tests.clusters import Cluster

    cluster = Cluster({"shared_buffers": "512MB", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"})
    try:
        cluster.start_now()
        asyncio.run(run(cluster.url, asked))
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
