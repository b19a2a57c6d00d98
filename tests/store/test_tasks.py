"""Creating, reading and changing tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest

from taskd.domain.event import EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.history import PAGE_BYTES, HistoryQuery, parse_history_query
from taskd.domain.model import NewTask, Status, Task
from taskd.domain.outcome import Ending, Outcome
from taskd.errors import Conflict, Invalid, KeyReused, NotFound, StaleVersion
from taskd.store.claims import ClaimStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def read(tasks: TaskStore, task_id: UUID) -> Task:
    [task] = await tasks.get_many([task_id])
    return task


async def types(tasks: TaskStore, task_id: UUID) -> list[str]:
    return [event.type.value for event in (await tasks.history(None, HistoryQuery(task_id))).events]


async def test_what_insert_returns_is_what_is_stored(tasks: TaskStore) -> None:
    full = NewTask("ёлка", "k.1", "о чём", '{"a": [1, 2.50, "\\u0000"]}', -100, LATER, 7, 0.5)
    made = await tasks.insert([("ann", full), ("bob", NewTask("b"))])
    assert {task.id: task for task in await tasks.get_many([task.id for task in made])} == {t.id: t for t in made}
    assert (made[0].status, made[1].status) == (Status.SCHEDULED, Status.NEW)
    assert made[0].payload_json == full.payload_json
    assert made[1].run_at == made[1].created_at == made[0].created_at


@pytest.mark.parametrize(
    "differs",
    [
        {},
        {"kind": "other"},
        {"priority": 3},
        {"run_at": LATER},
        {"max_attempts": 9},
        {"timeout_seconds": 0.25},
    ],
    ids=str,
)
async def test_what_is_the_same_for_all_of_a_batch_is_so_for_each(tasks: TaskStore, differs: dict[str, Any]) -> None:
    for drafts in ([NewTask("a"), NewTask("b", **differs)], [NewTask("a", **differs)] * 2):
        for owners in (("ann", "ann"), ("ann", "bob")):
            made = await tasks.insert(list(zip(owners, drafts, strict=True)))
            found = {task.id: task for task in await tasks.get_many([task.id for task in made])}
            assert [found[task.id] for task in made] == made
            wanted = [
                draft._replace(run_at=draft.run_at or task.created_at) for draft, task in zip(drafts, made, strict=True)
            ]
            assert [NewTask(*(getattr(task, name) for name in NewTask._fields)) for task in made] == wanted
            assert tuple(task.owner for task in made) == owners
    assert await tasks.insert([]) == []


async def test_a_past_run_at_is_kept_and_the_task_is_ready(make: Maker) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    task = await make.one(run_at=past)
    assert (task.status, task.run_at) == (Status.NEW, past)


async def test_ids_are_of_version_7_and_sort_as_the_batch_was_given(make: Maker) -> None:
    made = await make.many(1000)
    assert [task.title for task in made] == [f"task {n}" for n in range(1000)]
    assert sorted(made, key=lambda task: task.id) == made
    assert {(task.id.version, task.id.variant) for task in made} == {(7, "specified in RFC 4122")}
    milliseconds = {task.id.int >> 80 for task in made}
    assert milliseconds == {int(made[0].created_at.timestamp() * 1000)}


async def test_a_batch_with_one_bad_item_leaves_nothing(tasks: TaskStore, database: Database) -> None:
    with pytest.raises(Invalid):
        await tasks.insert([("ann", NewTask("good")), ("ann", NewTask("b\0d"))])
    with pytest.raises(Invalid):
        await tasks.insert([("ann", NewTask("good")), ("ann", NewTask("\ud800"))])
    assert await database.fetchval("SELECT count(*) FROM tasks") == 0
    assert await database.fetchval("SELECT count(*) FROM events") == 0


async def test_a_patch_changes_all_it_names_and_leaves_one_event(make: Maker, tasks: TaskStore) -> None:
    task = await make.one(payload_json='{"a":1,"b":{"c":2}}')
    patch = TaskPatch(
        {
            "title": "T",
            "description": "D",
            "payload": {"a": None, "b": {"d": 3}},
            "priority": 9,
            "max_attempts": 1,
            "timeout_seconds": 2,
            "run_at": LATER,
        }
    )
    changed = await tasks.update("ann", task.id, patch)
    assert changed == await read(tasks, task.id)
    assert changed == replace(
        task,
        title="T",
        description="D",
        payload_json='{"b":{"c":2,"d":3}}',
        priority=9,
        max_attempts=1,
        timeout_seconds=2.0,
        run_at=LATER,
        status=Status.SCHEDULED,
        version=2,
        updated_at=changed.updated_at,
    )
    assert changed.updated_at > task.updated_at
    assert await types(tasks, task.id) == ["created", "updated"]


async def test_run_at_moves_a_waiting_task_between_scheduled_and_new(make: Maker, tasks: TaskStore) -> None:
    task = await make.one()
    assert (await tasks.update(None, task.id, TaskPatch({"run_at": LATER}))).status is Status.SCHEDULED
    again = await tasks.update(None, task.id, TaskPatch({"run_at": LATER + timedelta(1)}))
    assert (again.status, again.run_at) == (Status.SCHEDULED, LATER + timedelta(1))
    now = await tasks.update(None, task.id, TaskPatch({"run_at": None}))
    assert now.status is Status.NEW
    assert now.run_at <= now.updated_at
    assert await types(tasks, task.id) == ["created", "updated", "updated", "updated"]


@pytest.mark.parametrize("fields", [{}, {"title": "title"}, {"priority": 0, "payload": {}}])
async def test_a_patch_that_changes_nothing_leaves_nothing(
    make: Maker, tasks: TaskStore, fields: dict[str, object]
) -> None:
    task = await make.one()
    assert await tasks.update("ann", task.id, TaskPatch(fields)) == task
    assert await types(tasks, task.id) == ["created"]


async def test_older_events_keep_the_content_they_were_written_with(
    make: Maker, tasks: TaskStore, database: Database
) -> None:
    task = await make.one("first", payload_json='{"n":1}')
    other = await make.one("other")
    await tasks.update(None, task.id, TaskPatch({"title": "second", "payload": {"n": 2}}))
    await tasks.update(None, task.id, TaskPatch({"priority": 1}))
    await tasks.update(None, task.id, TaskPatch({"description": "third"}))
    events = (await tasks.history(None, HistoryQuery(task.id))).events
    seen = [(e.task.title, e.task.description, e.task.payload_json) for e in events]
    second = ("second", "", '{"n":2}')
    assert seen == [("first", "", '{"n":1}'), second, second, ("second", "third", '{"n":2}')]
    assert [event.task.title for event in (await tasks.history(None, HistoryQuery(other.id))).events] == ["other"]
    # What has not changed is not copied.
    copied = await database.fetch("SELECT version FROM events WHERE title IS NOT NULL ORDER BY version")
    assert [row["version"] for row in copied] == [1, 2, 3]


async def test_events_outlive_a_deleted_task_with_its_content(
    make: Maker, tasks: TaskStore, database: Database
) -> None:
    task = await make.one("gone", description="words", payload_json='{"p":0}')
    await tasks.update(None, task.id, TaskPatch({"priority": 3}))
    await tasks.delete("ann", task.id)
    assert await tasks.get_many([task.id]) == []
    rows = await database.fetch("SELECT * FROM event_rows ORDER BY xid, seq")
    assert [(row["type"], row["version"], row["priority"]) for row in rows] == [
        ("created", 1, 0),
        ("updated", 2, 3),
        ("deleted", 3, 3),
    ]
    assert {(row["title"], row["description"], row["payload"]) for row in rows} == {("gone", "words", '{"p":0}')}
    assert await database.fetchval("SELECT count(*) FROM task_states") == 0
    with pytest.raises(NotFound):
        await tasks.history("ann", HistoryQuery(task.id))


async def test_cancel_ends_a_waiting_task_once(make: Maker, tasks: TaskStore) -> None:
    task = await make.one()
    ended = await tasks.cancel("ann", task.id)
    assert (ended.status, ended.version, ended.cancel_requested_at) == (Status.CANCELLED, 2, None)
    assert ended.finished_at is not None
    assert await tasks.cancel("ann", task.id) == ended == await read(tasks, task.id)
    assert await types(tasks, task.id) == ["created", "cancelled"]


async def test_cancel_asks_a_running_task_once(make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID) -> None:
    task = await make.one()
    await claims.claim(lease, ["default"], 1)
    asked = await tasks.cancel("ann", task.id)
    assert asked.status is Status.RUNNING
    assert asked.cancel_requested_at is not None
    assert await tasks.cancel("ann", task.id) == asked
    assert await types(tasks, task.id) == ["created", "started", "updated"]


async def test_a_running_task_takes_new_words_only(
    make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID
) -> None:
    task = await make.one()
    await claims.claim(lease, ["default"], 1)
    with pytest.raises(Conflict):
        await tasks.update("ann", task.id, TaskPatch({"title": "new", "priority": 1}))
    assert (await tasks.update("ann", task.id, TaskPatch({"title": "new"}))).status is Status.RUNNING
    with pytest.raises(Conflict):
        await tasks.delete("ann", task.id)
    with pytest.raises(Conflict):
        await tasks.retry("ann", task.id)


async def test_retry_begins_anew(make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID) -> None:
    task = await make.one()
    [running] = await claims.claim(lease, ["default"], 1)
    failed = Outcome(task.id, 1, lease, Ending.FAILED, error_type="ValueError", error_message="no")
    stored = await claims.finish(failed)
    assert stored is not None
    with pytest.raises(Conflict):
        await tasks.cancel("ann", task.id)
    again = await tasks.retry("ann", task.id)
    assert again == replace(task, run_at=again.run_at, version=running.version + 2, updated_at=again.updated_at)
    assert again == await read(tasks, task.id)
    assert await types(tasks, task.id) == ["created", "started", "failed", "updated"]


async def test_a_retry_after_done_is_refused(make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID) -> None:
    task = await make.one()
    await claims.claim(lease, ["default"], 1)
    await claims.finish(Outcome(task.id, 1, lease, Ending.DONE, "1"))
    with pytest.raises(Conflict):
        await tasks.retry("ann", task.id)
    # New words for a task that is done keep its result.
    assert (await tasks.update("ann", task.id, TaskPatch({"title": "t"}))).result == 1
    assert (await read(tasks, task.id)).result == 1


async def test_another_owners_task_is_not_there(make: Maker, tasks: TaskStore) -> None:
    task = await make.one(owner="bob")
    for call in (
        tasks.update("ann", task.id, TaskPatch({"title": "x"})),
        tasks.delete("ann", task.id),
        tasks.cancel("ann", task.id),
        tasks.retry("ann", task.id),
        tasks.history("ann", HistoryQuery(task.id)),
        tasks.cancel(None, uuid4()),
    ):
        with pytest.raises(NotFound):
            await call
    assert await read(tasks, task.id) == task


async def test_a_page_of_a_history_is_no_larger_than_it_may_be(make: Maker, tasks: TaskStore) -> None:
    task = await make.one(payload_json=f'{{"x":"{"y" * 250_000}"}}')
    for number in range(40):
        await tasks.update("ann", task.id, TaskPatch({"title": f"t{number}"}), None)
    query, versions = HistoryQuery(task.id, limit=200), []
    for _ in range(20):
        page = await tasks.history("ann", query)
        size = sum(len(event.json) for event in page.events)
        assert size - len(page.events[-1].json) < PAGE_BYTES
        versions += [event.task.version for event in page.events]
        if page.next_cursor is None:
            break
        query = parse_history_query(task.id, [("limit", "200"), ("cursor", page.next_cursor)])
    assert versions == list(range(1, 42))


async def test_a_stale_version_is_refused(make: Maker, tasks: TaskStore) -> None:
    task = await make.one()
    with pytest.raises(StaleVersion):
        await tasks.update("ann", task.id, TaskPatch({"title": "x"}), frozenset({2, 3}))
    with pytest.raises(StaleVersion):
        await tasks.delete("ann", task.id, frozenset())
    await tasks.update("ann", task.id, TaskPatch({"title": "x"}), frozenset({1}))
    await tasks.delete("ann", task.id, frozenset({2}))


async def test_of_two_patches_at_once_with_one_version_only_one_goes_in(make: Maker, tasks: TaskStore) -> None:
    task = await make.one()
    calls = [tasks.update("ann", task.id, TaskPatch({"title": f"t{n}"}), frozenset({1})) for n in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["StaleVersion"] * 7 + ["Task"]


async def test_patches_at_once_of_different_fields_all_go_in(make: Maker, tasks: TaskStore) -> None:
    task = await make.one()
    patches = [TaskPatch({"payload": {f"k{n}": n}}) for n in range(8)]
    await asyncio.gather(*(tasks.update("ann", task.id, patch) for patch in patches))
    changed = await read(tasks, task.id)
    assert changed.payload == {f"k{n}": n for n in range(8)}
    history = (await tasks.history("ann", HistoryQuery(task.id))).events
    assert [len(event.task.payload) for event in history] == list(range(9))
    assert {event.type for event in history[1:]} == {EventType.UPDATED}


async def test_the_same_key_gives_the_first_answer(tasks: TaskStore, database: Database) -> None:
    draft = NewTask("once", payload_json='{"x":1.5}')
    [first] = await tasks.insert_once("ann", [draft], "key", b"print")
    await tasks.update("ann", first.id, TaskPatch({"title": "changed"}))
    assert await tasks.insert_once("ann", [draft], "key", b"print") == [first]
    [other] = await tasks.insert_once("bob", [draft], "key", b"print")
    assert other.id != first.id
    with pytest.raises(KeyReused):
        await tasks.insert_once("ann", [draft], "key", b"another")
    assert await database.fetchval("SELECT count(*) FROM tasks") == 2


async def test_the_same_key_at_once_creates_once(tasks: TaskStore, database: Database) -> None:
    answers = await asyncio.gather(*(tasks.insert_once("ann", [NewTask("x")], "key", b"f") for _ in range(10)))
    assert len({answer[0].id for answer in answers}) == 1
    assert await database.fetchval("SELECT count(*) FROM tasks") == 1


async def test_a_key_whose_request_failed_is_free(tasks: TaskStore) -> None:
    with pytest.raises(Invalid):
        await tasks.insert_once("ann", [NewTask("b\0d")], "key", b"bad")
    assert await tasks.insert_once("ann", [NewTask("good")], "key", b"good")


async def test_a_key_of_yesterday_is_free(tasks: TaskStore, database: Database) -> None:
    [first] = await tasks.insert_once("ann", [NewTask("x")], "key", b"f")
    await database.execute("UPDATE idempotency SET created_at = created_at - interval '25 hours'")
    [second] = await tasks.insert_once("ann", [NewTask("y")], "key", b"g")
    assert second.id != first.id
    assert await tasks.insert_once("ann", [NewTask("y")], "key", b"g") == [second]


async def test_ids_sort_by_time_to_the_microsecond_and_as_a_batch_was_given(database: Database) -> None:
    made = "SELECT new_task_id('2026-01-02 03:04:05Z'::timestamptz + make_interval(secs => $1::float8 / 1e6), $2) AS id"
    moments = [0, 1, 2, 499, 500, 999, 1000, 1001, 999_999, 1_000_000]
    ids = [await database.fetchval(made, float(moment), 16_383 - n) for n, moment in enumerate(moments)]
    assert ids == sorted(ids)
    batch = [await database.fetchval(made, 7.0, n) for n in range(1, 1001)]
    assert batch == sorted(batch)
    for task_id in (*ids, *batch):
        assert (task_id.version, task_id.variant) == (7, RFC_4122)
        assert datetime.fromtimestamp((task_id.int >> 80) / 1000, UTC).year == 2026
    assert len({task_id.int & 0xFFFF_FFFF_FFFF for task_id in batch}) == 1000, "the rest is drawn by chance"
