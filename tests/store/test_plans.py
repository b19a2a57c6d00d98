"""The hot statements use their indexes, planned for their arguments and planned once for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from taskd.domain.model import ListQuery, Status
from taskd.store.passed import NO_ID
from taskd.store.pool import Database
from taskd.store.statements import Statement, compose, load
from taskd.store.tasks import _page_flags, _page_values

FILL = [
    """
    INSERT INTO tasks (id, owner, kind, title, description, payload, created_at)
    SELECT new_task_id(at, 0), 'user' || n % 50, 'kind' || n % 5, 'title ' || n, 'some words', '{}', at
    FROM (SELECT n, clock_timestamp() - make_interval(secs => 30000 - n) AS at FROM generate_series(1, 30000) n) t
    """,
    """
    INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                             updated_at, finished_at, lease, event, event_xid)
    SELECT id, owner, kind, created_at, status, 0, created_at, 5, 300, created_at,
           CASE WHEN status = 'done' THEN created_at END,
           CASE WHEN status = 'running' THEN '00000000-0000-4000-8000-000000000000'::uuid END,
           'created', pg_current_xact_id()
    FROM (SELECT *, CASE WHEN row_number() OVER () % 100 = 0 THEN 'running' WHEN row_number() OVER () % 10 = 0
                         THEN 'scheduled' WHEN row_number() OVER () % 3 = 0 THEN 'new' ELSE 'done' END AS status
          FROM tasks) t
    """,
]


@pytest.fixture
async def fresh(database: Database) -> Database:
    """So new that the planner knows nothing of what is in it."""
    # Or it may learn in the middle of a test.
    for table in ("tasks", "task_states", "events_default"):
        await database.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for statement in FILL:
        await database.execute(statement)
    return database


@pytest.fixture
async def filled(fresh: Database) -> Database:
    await fresh.execute("ANALYZE")
    return fresh


def literal(value: Any) -> str:
    if isinstance(value, list):
        value = "{" + ",".join(map(str, value)) + "}"
    return "NULL" if value is None else "'{}'".format(str(value).replace("'", "''"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def plans(
    database: Database, statement: Statement | str, args: list[Any], *, seqscan: bool = True
) -> list[list[dict[str, Any]]]:
    """Return the nodes of a statement's custom and of its generic plan, as behind a pooler if `seqscan`."""
    text = statement if isinstance(statement, str) else statement.text
    found = []
    async with database.transaction() as session:
        if seqscan:
            await session.execute("SET LOCAL enable_seqscan = on")
        await session.execute(f"PREPARE hot AS {text}")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await session.execute(f"SET LOCAL plan_cache_mode = {mode}")
            values = f"({', '.join(map(literal, args))})" if args else ""
            answer = await session.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot{values}")
            found.append(list(nodes(json.loads(answer)[0]["Plan"])))
        await session.execute("DEALLOCATE hot")
    return found


async def expect(database: Database, statement: Statement | str, args: list[Any], *indexes: str) -> None:
    """Fail unless both plans use each of the indexes, and read none of the large tables from end to end."""
    for plan in await plans(database, statement, args):
        used = {node["Index Name"] for node in plan if "Index Name" in node}
        scanned = {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}
        assert set(indexes) <= used, (used, scanned)
        assert not scanned & {"tasks", "task_states", "events_default"}, scanned


RANGES: list[Any] = [["kind1", "kind2"], 16, [-100, -100], [NO_ID, NO_ID], [100, 100], 16]
"""Two kinds from end to end, as a claim is given them."""


async def test_claim(filled: Database) -> None:
    await filled.execute(
        "INSERT INTO leases VALUES ($1, 'all', 'x', 1, now(), now(), now() + interval '1 hour')", lease := uuid4()
    )
    await expect(filled, load("claims")["claim"], [lease, *RANGES], "task_states_ready", "tasks_pkey")
    for plan in await plans(filled, load("claims")["claim"], [lease, *RANGES]):
        # Ready tasks are read in order and never sorted: a sort would read all of them.
        ready = [node for node in plan if node.get("Index Name") == "task_states_ready"]
        assert len(ready) == 2
        assert {node["Node Type"] for node in ready} <= {"Index Scan", "Index Only Scan"}


async def test_claim_when_ready_tasks_are_taken_for_few(filled: Database) -> None:
    # As after a burst: the planner still believes that there are no ready tasks, and any of their indexes would do.
    rows = await filled.fetch("SELECT task_id FROM task_states WHERE status = 'new'")
    change = "UPDATE task_states SET status = $2 WHERE task_id = ANY ($1::uuid[])"
    await filled.execute(change, [row["task_id"] for row in rows], "scheduled")
    await filled.execute("VACUUM ANALYZE task_states")
    await filled.execute(change, [row["task_id"] for row in rows], "new")
    await filled.execute("INSERT INTO leases VALUES ($1, 'all', 'x', 1, now(), now(), 'infinity')", lease := uuid4())
    for plan in await plans(filled, load("claims")["claim"], [lease, *RANGES]):
        # Nor is the content of tasks found by reading all of them, as long as the planner takes them for few.
        assert "tasks_pkey" in {node.get("Index Name") for node in plan}
        used = [node["Index Name"] for node in plan if node.get("Index Name", "").startswith("task_states")]
        assert sorted(used) == ["task_states_pkey", "task_states_ready", "task_states_ready"]
    await expect(filled, load("claims")["waiting_kinds"], [], "task_states_ready")


@pytest.mark.parametrize("name", ["claim", "finish", "report"])
async def test_a_table_that_was_small_when_it_was_planned_for_may_grow(database: Database, name: str) -> None:
    for statement in FILL:
        await database.execute(statement.replace("30000", "20"))
    await database.execute("VACUUM ANALYZE")
    args = {"claim": [uuid4(), *RANGES], "finish": [[] for _ in range(8)], "report": [[] for _ in range(5)]}[name]
    for plan in await plans(database, load("claims")[name], args, seqscan=False):
        assert "Seq Scan" not in {node["Node Type"] for node in plan}


async def test_finish_and_report(filled: Database) -> None:
    rows = await filled.fetch("SELECT task_id, lease FROM task_states WHERE status = 'running' LIMIT 50")
    ids: list[UUID] = [row["task_id"] for row in rows]
    leases = [row["lease"] for row in rows]
    ones, words = [1] * 50, ["done"] * 50
    await expect(
        filled,
        load("claims")["finish"],
        [ids, ones, leases, words, ones, words, words, ones],
        "task_states_pkey",
    )
    await expect(filled, load("claims")["report"], [ids, ones, leases, ones, words], "task_states_pkey")


async def test_promote_rescue_and_kinds(filled: Database) -> None:
    await expect(filled, load("claims")["promote"], [1000], "task_states_due")
    await expect(filled, load("claims")["waiting_kinds"], [], "task_states_ready")
    await expect(filled, load("leases")["rescue"], [[uuid4()], 100], "task_states_held")
    await expect(filled, load("leases")["left"], [6.0, 4.0], "task_states_held")
    await expect(filled, load("leases")["renew"], [uuid4(), 6.0, 2.5], "task_states_stopping")
    await expect(filled, load("sweep")["expired"], [86400 * 30, 100], "task_states_finished")


async def test_reads_and_changes_of_one(filled: Database) -> None:
    ids = [row["id"] for row in await filled.fetch("SELECT id FROM tasks LIMIT 5")]
    sql = load("tasks")
    await expect(filled, sql["get_many"], [ids], "tasks_pkey", "task_states_pkey")
    await expect(filled, sql["lock"], ids[:1], "tasks_pkey", "task_states_pkey")
    await expect(filled, sql["history"], [ids[0], 0, 11], "events_default_task_id_idx")
    await expect(filled, sql["keep_content"], [ids[:1]], "events_default_task_id_idx")


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("owner", "statuses", "kind", "index"),
    [
        (None, (), None, "tasks_created"),
        ("user1", (), None, "tasks_owner"),
        ("user1", (), "kind1", "tasks_owner_kind"),
        ("user1", (Status.NEW, Status.DONE), None, "task_states_owner"),
    ],
)
async def test_pages(
    filled: Database,
    owner: str | None,
    statuses: tuple[Status, ...],
    kind: str | None,
    index: str,
    behind: bool,
    newest_first: bool,
) -> None:
    middle = await filled.fetchrow("SELECT created_at, id FROM tasks ORDER BY created_at OFFSET 15000 LIMIT 1")
    assert middle is not None
    after = (middle["created_at"], middle["id"]) if behind else None
    query = ListQuery(owner, statuses, kind, cursor="behind it" if behind else None, newest_first=newest_first)
    statement, args = compose(load("tasks")["page"], _page_values(query, after), _page_flags(query))
    await expect(filled, statement, args, index, "tasks_pkey", "task_states_pkey")


async def test_the_log(fresh: Database) -> None:
    end = await fresh.fetchval("SELECT max(seq) FROM events")
    xid = await fresh.fetchval("SELECT xid::text::bigint FROM events LIMIT 1")
    asked = [xid, end - 500, 500]
    for _ in range(2):
        await expect(fresh, load("events")["read"], asked, "events_default_xid_seq_idx", "tasks_pkey")
        await expect(fresh, load("events")["read_bare"], [*asked, True], "events_default_xid_seq_idx")
        await fresh.execute("ANALYZE")


async def test_totals(filled: Database) -> None:
    # As it is after a while: many events, of many transactions, of which the last few are behind the mark.
    await filled.execute("UPDATE events SET xid = (3 + seq / 10)::text::xid8")
    await filled.execute("UPDATE task_totals SET mark_xid = (SELECT max(xid) FROM events WHERE seq < 29000)")
    await filled.execute("ANALYZE")
    end = await filled.fetchval("SELECT max(xid)::text::bigint FROM events")
    await expect(filled, load("totals")["at"], [end, 0], "events_default_xid_seq_idx")
    await expect(filled, load("totals")["fold"], [100_000], "events_default_xid_seq_idx")
    await expect(filled, load("totals")["oldest_ready"], [], "task_states_oldest")
    for plan in await plans(filled, load("totals")["oldest_ready"], []):
        assert not {"Sort", "Bitmap Heap Scan"} & {node["Node Type"] for node in plan}
