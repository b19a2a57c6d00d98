"""Where the queue's state should live: three layouts of the same tasks, the same work, the same database.

    python -m bench.layout DATABASE_URL [--rows 1000000] [--work 100000] [--batch 100]

- `one`: everything in one table, the search document too.
- `document`: the record and the queue's state in one table, the search document in its own.
- `state`: the record and the search document in one table, the queue's state in its own.

Each layout is filled with `--rows` finished tasks (30 words of Russian and English each, GIN on the document) and
`--work` ready ones; then the ready ones are claimed and finished, `--batch` at a time, as the workers do. Printed:
seconds, WAL bytes and the growth of tables and indexes for that work, then what creating, listing and reading cost.
The figures of a run that a decision stands on are in `docs/decisions/0001-layout.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from dataclasses import dataclass

import asyncpg

DOCUMENT = "setweight(to_tsvector('russian', title), 'A') || setweight(to_tsvector('russian', description), 'B')"
RECORD = (
    "id uuid PRIMARY KEY, owner text, kind text, title text, description text, payload json, created_at timestamptz"
)
STATE = """status text NOT NULL, priority int NOT NULL DEFAULT 0, run_at timestamptz, attempt int DEFAULT 0,
    max_attempts int DEFAULT 5, timeout_seconds float8 DEFAULT 300, result json, version bigint DEFAULT 1,
    updated_at timestamptz DEFAULT now(), started_at timestamptz, finished_at timestamptz, lease uuid"""


def _state_indexes(table: str, key: str) -> str:
    return f"""
        CREATE INDEX ON {table} (kind, priority DESC, {key}) WHERE status = 'new';
        CREATE INDEX ON {table} (lease) WHERE status = 'running';
        CREATE INDEX ON {table} (owner, status, created_at, {key});
        CREATE INDEX ON {table} (finished_at) WHERE finished_at IS NOT NULL;"""


RECORD_INDEXES = "CREATE INDEX ON tasks (owner, created_at, id); CREATE INDEX ON tasks (created_at, id);"
SOURCE = "id, owner, kind, title, description, payload, created_at"


@dataclass(frozen=True)
class Layout:
    """How one layout is made, filled, worked and read; `filled` is a relation of `SOURCE` columns and `status`."""

    name: str
    tables: tuple[str, ...]
    create: str
    fill: str
    states: str
    key: str
    read: str


LAYOUTS = (
    Layout(
        "one",
        ("tasks",),
        f"CREATE TABLE tasks ({RECORD}, document tsvector, {STATE}) WITH (fillfactor = 80);"
        + RECORD_INDEXES
        + _state_indexes("tasks", "id")
        + "CREATE INDEX ON tasks USING gin (document);",
        f"INSERT INTO tasks ({SOURCE}, document, status) SELECT {SOURCE}, {DOCUMENT}, status FROM filled",
        "tasks",
        "id",
        "tasks t",
    ),
    Layout(
        "document",
        ("tasks", "documents"),
        f"CREATE TABLE tasks ({RECORD}, {STATE}) WITH (fillfactor = 80);"
        + RECORD_INDEXES
        + _state_indexes("tasks", "id")
        + "CREATE TABLE documents (task_id uuid PRIMARY KEY, document tsvector);"
        + "CREATE INDEX ON documents USING gin (document);",
        f"WITH d AS (INSERT INTO documents SELECT id, {DOCUMENT} FROM filled) "
        f"INSERT INTO tasks ({SOURCE}, status) SELECT {SOURCE}, status FROM filled",
        "tasks",
        "id",
        "tasks t",
    ),
    Layout(
        "state",
        ("tasks", "states"),
        f"CREATE TABLE tasks ({RECORD}, document tsvector);"
        + RECORD_INDEXES
        + f"CREATE TABLE states (task_id uuid PRIMARY KEY, owner text, kind text, created_at timestamptz, {STATE}) "
        + "WITH (fillfactor = 80);"
        + _state_indexes("states", "task_id")
        + "CREATE INDEX ON tasks USING gin (document);",
        "WITH s AS (INSERT INTO states (task_id, owner, kind, created_at, status) "
        "SELECT id, owner, kind, created_at, status FROM filled) "
        f"INSERT INTO tasks ({SOURCE}, document) SELECT {SOURCE}, {DOCUMENT} FROM filled",
        "states",
        "task_id",
        "tasks t JOIN states s ON s.task_id = t.id",
    ),
)

VOCABULARY = """
    CREATE TEMP TABLE words AS
    SELECT n, CASE WHEN n % 2 = 0
        THEN (ARRAY['отчёт','задача','письмо','клиент','сервер','очередь','заказ','договор'])[1 + n / 2 % 8]
        ELSE (ARRAY['report','task','letter','client','server','queue','order','contract'])[1 + n / 2 % 8]
        END || CASE WHEN n < 16 THEN '' ELSE n::text END AS word
    FROM generate_series(0, 19999) n;
    CREATE UNIQUE INDEX ON words (n);
"""


def _filled(rows: int, status: str) -> str:
    # Words are drawn with a skew (the cube of an even draw), as words of a language are.
    return f"""
        CREATE TEMP TABLE filled AS
        SELECT gen_random_uuid() AS id, 'user' || n % 1000 AS owner, 'default' AS kind,
               (SELECT string_agg(w.word, ' ') FROM generate_series(1, 5) i
                JOIN words w ON w.n = floor(power(random() + 0 * n * i, 3) * 20000)::int) AS title,
               (SELECT string_agg(w.word, ' ') FROM generate_series(1, 25) i
                JOIN words w ON w.n = floor(power(random() + 0 * n * i, 3) * 20000)::int) AS description,
               '{{"n": 1}}'::json AS payload, clock_timestamp() - n * interval '1 second' AS created_at,
               '{status}' AS status
        FROM generate_series(1, {rows}) n"""


async def _size(db: asyncpg.Connection, tables: tuple[str, ...]) -> int:
    return sum([await db.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table) for table in tables])


async def _wal(db: asyncpg.Connection) -> int:
    return int(await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def _work(db: asyncpg.Connection, layout: Layout, batch: int) -> int:
    s, key = layout.states, layout.key
    claim = await db.prepare(f"""
        WITH ready AS (
            SELECT {key} AS id FROM {s} WHERE status = 'new' AND kind = 'default'
            ORDER BY kind, priority DESC, {key} LIMIT $1 FOR UPDATE SKIP LOCKED)
        UPDATE {s} s SET status = 'running', attempt = attempt + 1, lease = $2, started_at = clock_timestamp(),
            version = version + 1, updated_at = clock_timestamp()
        FROM ready WHERE s.{key} = ready.id RETURNING s.{key}, s.attempt""")
    finish = await db.prepare(f"""
        UPDATE {s} s SET status = 'done', result = '1', lease = NULL, finished_at = clock_timestamp(),
            version = version + 1, updated_at = clock_timestamp()
        FROM unnest($1::uuid[], $2::int[]) u (id, attempt)
        WHERE s.{key} = u.id AND s.attempt = u.attempt AND s.lease = $3 AND s.status = 'running'""")
    lease = await db.fetchval("SELECT gen_random_uuid()")
    done = 0
    while rows := await claim.fetch(batch, lease):
        await finish.fetch([row[0] for row in rows], [row[1] for row in rows], lease)
        done += len(rows)
    return done


async def _reads(db: asyncpg.Connection, layout: Layout, rounds: int = 2000) -> tuple[float, float]:
    ids = [r[0] for r in await db.fetch(f"SELECT id FROM tasks ORDER BY random() LIMIT {rounds}")]
    get = await db.prepare(f"SELECT * FROM {layout.read} WHERE t.id = ANY($1)")
    page = await db.prepare(
        f"SELECT * FROM {layout.read} WHERE t.owner = $1 ORDER BY t.created_at DESC, t.id DESC LIMIT 50"
    )
    begun = time.perf_counter()
    for task_id in ids:
        await get.fetch([task_id])
    got = time.perf_counter()
    for _ in range(rounds // 4):
        await page.fetch(f"user{random.randrange(1000)}")
    return (got - begun) / rounds * 1e6, (time.perf_counter() - got) / (rounds // 4) * 1e6


async def measure(db: asyncpg.Connection, layout: Layout, rows: int, work: int, batch: int) -> None:
    """Make, fill, work and read one layout, print its line, and drop it."""
    await db.execute(layout.create)
    for status, count in (("done", rows), ("new", work)):
        await db.execute(_filled(count, status))
        begun, wal = time.perf_counter(), await _wal(db)
        await db.execute(layout.fill)
        filled = time.perf_counter() - begun, await _wal(db) - wal
        await db.execute("DROP TABLE filled")
    for table in layout.tables:
        await db.execute(f"VACUUM ANALYZE {table}")
    await db.execute("CHECKPOINT")
    size, wal, begun = await _size(db, layout.tables), await _wal(db), time.perf_counter()
    done = await _work(db, layout, batch)
    seconds = time.perf_counter() - begun
    assert done == work
    wal, growth = await _wal(db) - wal, await _size(db, layout.tables) - size
    get, page = await _reads(db, layout)
    print(
        f"{layout.name:9} claim+finish {seconds:6.1f} s  {work / seconds:6.0f}/s  WAL {wal / work:6.0f} B/task"
        f"  growth {growth / 2**20:6.1f} MiB of {size / 2**20:6.0f} | create {filled[0] / work * 1e6:5.0f} µs/task"
        f"  {filled[1] / work:5.0f} B | get {get:5.0f} µs  page {page:6.0f} µs",
        flush=True,
    )
    await db.execute(f"DROP TABLE {', '.join(layout.tables)}")


async def main() -> None:
    """Measure the layouts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--layout", action="append", choices=[layout.name for layout in LAYOUTS])
    asked = parser.parse_args()
    db = await asyncpg.connect(asked.url, command_timeout=3600)
    print(await db.fetchval("SELECT version()"))
    print({n: await db.fetchval(f"SHOW {n}") for n in ("shared_buffers", "fsync", "max_wal_size")}, vars(asked))
    await db.execute(VOCABULARY)
    for layout in LAYOUTS:
        if not asked.layout or layout.name in asked.layout:
            await measure(db, layout, asked.rows, asked.work, asked.batch)
    await db.close()


if __name__ == "__main__":
    asyncio.run(main())
