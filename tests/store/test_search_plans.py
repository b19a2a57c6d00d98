"""How PostgreSQL goes about a search: by the index of words for rare ones, by age for frequent ones."""

from __future__ import annotations

import json

import pytest

from taskd.domain.model import Status
from taskd.domain.search import SearchQuery
from taskd.store.pool import Database
from taskd.store.search import MOST, Words, page_statement
from taskd.store.statements import load
from tests.store.test_plans import literal, nodes

FILL = [
    """
    INSERT INTO tasks (id, owner, kind, title, description, payload, created_at)
    SELECT new_task_id(at, 0), CASE WHEN n % 100 = 0 THEN 'small' ELSE 'large' END, 'kind', 'общее слово ' || n,
           CASE WHEN n % 10000 = 0 THEN 'редкость' WHEN n < 4000 THEN 'давность' ELSE 'совсем другой текст' END, '{}',
           at
    FROM (SELECT n, clock_timestamp() - make_interval(secs => 40000 - n) AS at FROM generate_series(1, 40000) n) t
    """,
    """
    INSERT INTO task_states (task_id, owner, kind, created_at, status, priority, run_at, max_attempts, timeout_seconds,
                             updated_at, event, event_xid, ready_at)
    SELECT id, owner, kind, created_at, 'new', 0, created_at, 5, 300, created_at, 'created', pg_current_xact_id(),
           created_at
    FROM tasks
    """,
    "VACUUM ANALYZE",
]


BY_AGE = "tasks_owner tasks_created"
"""Either: an owner of nearly all tasks is as well found among all."""


@pytest.fixture
async def filled(database: Database) -> Database:
    for statement in FILL:
        await database.execute(statement)
    return database


async def plan(database: Database, query: SearchQuery, *, by_words: bool = False) -> list[dict[str, object]]:
    """Return the nodes of the plan of a search's first page, under the settings of a search."""
    async with database.transaction() as session:
        await session.execute("SET LOCAL enable_seqscan = on")  # as it is behind a pooler
        await session.execute(load("search")["limits"], "5000")
        # However often it is asked: a plan that is made once for all words suits none.
        assert await session.fetchval("SHOW plan_cache_mode") == "force_custom_plan"
        row = await session.fetchrow(load("search")["parse"], query.text)
        assert row is not None
        if by_words:
            await session.execute(load("search")["by_words"])
        statement, args = page_statement(query, Words(row["query"], row["config"], True), MOST)
        await session.execute(f"PREPARE searched AS {statement.text}")
        answer = await session.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE searched({', '.join(map(literal, args))})")
        await session.execute("DEALLOCATE searched")
    return list(nodes(json.loads(answer)[0]["Plan"]))


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (SearchQuery("large", "редкость"), "tasks_document"),
        (SearchQuery(None, "редкость"), "tasks_document"),
        (SearchQuery("large", '"редкость слово"'), "tasks_document"),
        (SearchQuery("large", "общее"), BY_AGE),
        (SearchQuery(None, "общее"), "tasks_created"),
        (SearchQuery("large", "общее слово"), BY_AGE),
        (SearchQuery("large", "-редкость"), BY_AGE),
        (SearchQuery("large", "общее", statuses=(Status.NEW,)), BY_AGE),
        (SearchQuery("small", "общее"), "tasks_owner"),
        # All of them old: what `by_words` is for.
        (SearchQuery(None, "давность"), "tasks_created"),
    ],
    ids=str,
)
async def test_a_search_reads_by_the_index_that_suits_its_words(
    filled: Database, query: SearchQuery, index: str
) -> None:
    found = await plan(filled, query)
    used = {node["Index Name"] for node in found if "Index Name" in node}
    scanned = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}
    assert used & set(index.split()), (used, scanned)
    assert not scanned & {"tasks", "task_states"}, scanned


@pytest.mark.parametrize(
    "query",
    [
        SearchQuery("large", "давность"),
        SearchQuery(None, "давность -редкость"),
        SearchQuery("large", "общее давность", statuses=(Status.NEW,)),
    ],
    ids=str,
)
async def test_a_search_whose_way_by_age_took_too_long_goes_by_its_words(filled: Database, query: SearchQuery) -> None:
    found = await plan(filled, query, by_words=True)
    assert "tasks_document" in {node.get("Index Name") for node in found}
    assert "tasks" not in {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"}


async def test_only_what_is_shown_is_ranked_and_marked(filled: Database) -> None:
    found = await plan(filled, SearchQuery("large", "общее", limit=7))
    limits = [node["Plan Rows"] for node in found if node["Node Type"] == "Limit"]
    assert max(limits) <= MOST + 1  # type: ignore[type-var]
    assert min(limits) <= 8  # type: ignore[type-var]
