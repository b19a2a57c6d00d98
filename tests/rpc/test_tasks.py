"""`TaskService` over a real database, beside REST: one service, two ways to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from taskd import Taskd
from taskd.domain.codec import encode_task
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.rpc.messages import task_of
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import Caller, calling, refusal_of, with_deadline
from tests.running import Server, embedded
from tests.waiting import eventually

Code = grpc.StatusCode
NOBODY = str(uuid4())


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    """A server without workers: what is created waits."""
    async with embedded(database_url, role="api", grpc="127.0.0.1:0", cache="memory") as found:
        yield found


@pytest.fixture
async def ann(server: Server) -> AsyncIterator[Caller]:
    assert server.app is not None
    async with calling(server.app.grpc_address) as caller:
        yield caller


@pytest.fixture
async def rest(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


def json_of(task: pb.Task) -> bytes:
    """Return a task as REST has it."""
    return encode_task(task_of(task))


async def make(caller: Caller, **fields: Any) -> pb.Task:
    answer = await caller.call("CreateTask", task=pb.NewTask(**{"title": "t", "kind": "nobody"} | fields))
    task: pb.Task = answer.task
    return task


FULL = {
    "title": "Отчёт", "kind": "nobody", "description": "о чём", "payload": {"a": [1, 2.5, "ё", None], "n": 2**60},
    "priority": -7, "run_at": "2100-01-02T03:04:05.000006Z", "max_attempts": 9, "timeout_seconds": 0.25,
}  # fmt: skip


async def test_a_task_made_by_one_is_the_same_task_in_the_other(ann: Caller, rest: httpx.AsyncClient) -> None:
    at = Timestamp()
    at.FromJsonString(str(FULL["run_at"]))
    fields = FULL | {"payload": json.dumps(FULL["payload"], ensure_ascii=False), "run_at": at}
    made = [json_of(await make(ann, **fields)), (await rest.post("/tasks", json=FULL)).content]
    for body in made:
        task_id = json.loads(body)["id"]
        by_grpc = json_of((await ann.call("GetTask", id=task_id)).task)
        assert by_grpc == (await rest.get(f"/tasks/{task_id}")).content == body
    one, other = ({name: json.loads(body)[name] for name in FULL} for body in made)
    assert one == other == FULL


async def test_each_change_is_the_same_by_both(ann: Caller, rest: httpx.AsyncClient) -> None:
    ids = [(await make(ann)).id for _ in range(2)]
    steps: list[tuple[str, dict[str, Any], str, str, Any]] = [
        ("UpdateTask", {"patch": pb.TaskPatch(title="u", priority=3)}, "PATCH", "", {"title": "u", "priority": 3}),
        ("CancelTask", {}, "POST", "/cancel", None),
        ("RetryTask", {}, "POST", "/retry", None),
        ("GetTask", {}, "GET", "", None),
    ]
    for method, fields, verb, path, body in steps:
        by_grpc = json.loads(json_of((await ann.call(method, id=ids[0], **fields)).task))
        by_rest = (await rest.request(verb, f"/tasks/{ids[1]}{path}", json=body)).json()
        own = ("id", "created_at", "updated_at", "run_at", "finished_at", "cancel_requested_at")
        assert {**by_grpc, **dict.fromkeys(own)} == {**by_rest, **dict.fromkeys(own)}, method
        assert (by_grpc["finished_at"] is None) == (by_rest["finished_at"] is None)
    deleted = (await ann.call("DeleteTask", id=ids[0])).task
    assert (deleted.id, deleted.title) == (ids[0], "u")
    assert (await rest.get(f"/tasks/{ids[0]}")).status_code == 404
    assert (await rest.delete(f"/tasks/{ids[1]}")).status_code == 204
    assert (await ann.refused("GetTask", id=ids[1])).code is Code.NOT_FOUND


REFUSED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("CreateTask", {}, {"task.title"}),
    ("CreateTask", {"task": {"title": "", "priority": 101, "payload": "[]"}},
     {"task.title", "task.priority", "task.payload"}),
    ("CreateTask", {"task": {"title": "t"}, "idempotency_key": "a b"}, {"idempotency_key"}),
    ("BatchCreateTasks", {}, {"tasks"}),
    ("BatchCreateTasks", {"tasks": [{"title": "t"}, {"kind": "?"}]}, {"tasks[1].title", "tasks[1].kind"}),
    ("GetTask", {"id": "x"}, {"id"}),
    ("GetTask", {"id": NOBODY, "not_before": "x"}, {"not_before"}),
    ("ListTasks", {"statuses": [99]}, {"statuses"}),
    ("ListTasks", {"statuses": [0]}, {"statuses"}),
    ("ListTasks", {"order": 9}, {"order"}),
    ("ListTasks", {"limit": 201, "kind": "?", "cursor": "x"}, {"limit", "kind"}),
    ("ListTasks", {"cursor": "x"}, {"cursor"}),
    ("ListTasks", {"limit": -1}, {"limit"}),
    ("ListTasks", {"created_after": {"seconds": 2**60}}, {"created_after"}),
    ("UpdateTask", {"id": ""}, {"id"}),
    ("UpdateTask", {"id": NOBODY, "update_mask": {"paths": ["titel"]}}, {"patch.titel"}),
    ("UpdateTask", {"id": NOBODY, "update_mask": {"paths": ["title"]}}, {"patch.title"}),
    ("UpdateTask", {"id": NOBODY, "patch": {"payload": "1"}}, {"patch.payload"}),
    ("DeleteTask", {"id": "-"}, {"id"}),
    ("CancelTask", {"id": "-"}, {"id"}),
    ("RetryTask", {"id": "-"}, {"id"}),
    ("SearchTasks", {"query": "x", "limit": 1000, "statuses": [42]}, {"limit", "statuses"}),
    ("ListTaskEvents", {"id": "-"}, {"id"}),
    ("ListEvents", {"limit": 1001}, {"limit"}),
    ("ListEvents", {"after": "x"}, {"after"}),
    ("ListEvents", {"after": "x", "limit": -1}, {"limit"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "fields", "faults"), REFUSED)
async def test_each_bad_field_is_named_as_the_proto_has_it(
    ann: Caller, method: str, fields: dict[str, Any], faults: set[str]
) -> None:
    refusal = await ann.refused(method, **fields)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "VALIDATION")
    assert refusal.faults.keys() == faults
    assert all(refusal.faults.values())


@pytest.mark.parametrize("method", ["GetTask", "UpdateTask", "DeleteTask", "CancelTask", "RetryTask", "ListTaskEvents"])
async def test_another_users_task_is_none(server: Server, ann: Caller, method: str) -> None:
    task = await make(ann)
    assert server.app is not None
    async with calling(server.app.grpc_address, "ben") as ben:
        fields = {"patch": pb.TaskPatch(title="u")} if method == "UpdateTask" else {}
        for id_ in (task.id, NOBODY):
            refusal = await ben.refused(method, id=id_, **fields)
            assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "NOT_FOUND")
        assert not (await ben.call("ListTasks")).tasks
    assert (await ann.call("GetTask", id=task.id)).task == task


async def test_a_key_gives_the_first_answer_again(ann: Caller, rest: httpx.AsyncClient) -> None:
    one = await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"), idempotency_key="k")
    again = await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"), idempotency_key="k")
    assert again == one
    by_rest = await rest.post("/tasks", json={"title": "t", "kind": "nobody"}, headers={"Idempotency-Key": "k"})
    assert by_rest.content == json_of(one.task)
    refusal = await ann.refused("CreateTask", task=pb.NewTask(title="u"), idempotency_key="k")
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    batch = {"tasks": [pb.NewTask(title="a"), pb.NewTask(title="b")], "idempotency_key": "l"}
    assert await ann.call("BatchCreateTasks", **batch) == await ann.call("BatchCreateTasks", **batch)


async def test_a_batch_is_made_whole_or_not_at_all(ann: Caller) -> None:
    made = await ann.call("BatchCreateTasks", tasks=[pb.NewTask(title=f"t{n}", kind="nobody") for n in range(1000)])
    assert [task.title for task in made.tasks] == [f"t{n}" for n in range(1000)]
    refusal = await ann.refused("BatchCreateTasks", tasks=[pb.NewTask(title="t")] * 1001)
    assert refusal.faults.keys() == {"tasks"}
    # More faults than fit into a status.
    refusal = await ann.refused("BatchCreateTasks", tasks=[pb.NewTask()] * 1000)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert refusal.faults["tasks[0].title"]


async def test_a_change_of_another_version_is_aborted(ann: Caller) -> None:
    task = await make(ann)
    changed = (await ann.call("UpdateTask", id=task.id, patch=pb.TaskPatch(title="u"), if_versions=[7, 1])).task
    assert changed.version == task.version + 1
    for method, more in (("UpdateTask", {"patch": pb.TaskPatch(title="v")}), ("DeleteTask", {})):
        refusal = await ann.refused(method, id=task.id, if_versions=[task.version], **more)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "STALE_VERSION")
    assert (await ann.call("DeleteTask", id=task.id, if_versions=[changed.version])).task == changed


async def test_what_the_status_forbids_is_a_failed_precondition(ann: Caller) -> None:
    task = await make(ann)
    refusal = await ann.refused("RetryTask", id=task.id)
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "CONFLICT")


async def test_the_mask_says_what_is_changed(ann: Caller) -> None:
    task = await make(ann, priority=5, description="d")
    patch = pb.TaskPatch(title="u", payload='{"x":1}')
    mask = FieldMask(paths=["title", "priority"])
    changed = (await ann.call("UpdateTask", id=task.id, patch=patch, update_mask=mask)).task
    assert (changed.title, changed.priority, changed.payload, changed.description) == ("u", 0, "{}", "d")


@pytest.mark.parametrize("order", [pb.LIST_ORDER_UNSPECIFIED, pb.LIST_ORDER_OLDEST_FIRST])
async def test_a_list_is_read_page_by_page(ann: Caller, rest: httpx.AsyncClient, order: int) -> None:
    made = [(await make(ann, title=f"t{number}")).id for number in range(7)]
    await make(ann, kind="another")
    pages, cursor = [], ""
    while True:
        page = await ann.call("ListTasks", limit=3, cursor=cursor, order=order, kind="nobody", statuses=[2])
        pages.append([task.id for task in page.tasks])
        if not (cursor := page.next_cursor):
            break
    found = [task for page in pages for task in page]
    assert found == (made if order else made[::-1])
    assert [len(page) for page in pages] == [3, 3, 1]
    by_rest = (await rest.get("/tasks", params={"kind": "nobody"})).json()
    assert [task["id"] for task in by_rest["tasks"]] == made[::-1]


async def test_reads_go_through_the_cache_and_see_each_change(server: Server, ann: Caller) -> None:
    assert server.app is not None
    requests = server.app.parts.catalog.cache_requests
    task = await make(ann)
    for title in ("u", "v"):
        await ann.call("UpdateTask", id=task.id, patch=pb.TaskPatch(title=title))
        for _ in range(3):
            assert (await ann.call("GetTask", id=task.id)).task.title == title
            assert [one.title for one in (await ann.call("ListTasks")).tasks] == [title]
    counted = {(c, r): requests.labels(c, r).value for c in ("task", "list") for r in ("hit", "miss")}
    assert counted[("task", "hit")] >= 3
    assert counted[("list", "hit")] >= 3
    # Whoever knows of a later place is not given what is cached.
    misses = counted[("task", "miss")]
    far = server.app.parts.feed.cursor(server.app.parts.feed.position._replace(xid=2**62))
    assert (await ann.call("GetTask", id=task.id, not_before=far)).task.title == "v"
    assert [one.title for one in (await ann.call("ListTasks", not_before=far)).tasks] == ["v"]
    assert requests.labels("task", "miss").value == misses


async def test_a_tasks_history_is_told(ann: Caller) -> None:
    task = await make(ann)
    await ann.call("UpdateTask", id=task.id, patch=pb.TaskPatch(title="u"))
    await ann.call("CancelTask", id=task.id)
    events = (await ann.call("ListTaskEvents", id=task.id)).events
    assert [event.type for event in events] == [
        pb.TASK_EVENT_TYPE_CREATED, pb.TASK_EVENT_TYPE_UPDATED, pb.TASK_EVENT_TYPE_CANCELLED
    ]  # fmt: skip
    assert [event.previous_status for event in events] == [0, pb.TASK_STATUS_NEW, pb.TASK_STATUS_NEW]
    assert [event.task.title for event in events] == ["t", "u", "u"]
    assert all(event.cursor for event in events)
    first = await ann.call("ListTaskEvents", id=task.id, limit=2)
    rest = await ann.call("ListTaskEvents", id=task.id, limit=2, cursor=first.next_cursor)
    assert [*first.events, *rest.events] == list(events)
    assert rest.next_cursor == ""
    assert (await ann.refused("ListTaskEvents", id=task.id, limit=201, cursor="x")).faults.keys() == {"limit", "cursor"}


async def log_of(caller: Caller, after: str, **fields: Any) -> tuple[list[pb.TaskEvent], str, list[bool]]:
    """Read the log to its end: the events, the place, and for each page whether there were more."""
    events: list[pb.TaskEvent] = []
    more: list[bool] = []
    while not more or more[-1]:
        page = await caller.call("ListEvents", after=after, **fields)
        assert page.recovered
        events += page.events
        more.append(page.more)
        after = page.cursor
    return events, after, more


async def test_the_log_is_read_in_pages_by_who_may_see_it(server: Server, ann: Caller) -> None:
    assert server.app is not None
    start = await ann.call("ListEvents")
    assert (start.recovered, start.more, list(start.events)) == (True, False, [])
    made = [await make(ann, title=f"t{number}") for number in range(5)]
    async with calling(server.app.grpc_address, "ben") as ben:
        other = await make(ben)
        await eventually(lambda: _told(ben, start.cursor, 6))
        events, end, more = await log_of(ann, start.cursor, limit=2)
        assert [event.task.id for event in events] == [task.id for task in made]
        assert more == [True, True, True, False]
        everything, same, _ = await log_of(ben, start.cursor, all_owners=True)
        assert ({event.task.id for event in everything}, same) == ({*(task.id for task in made), other.id}, end)
        mine, _, _ = await log_of(ben, start.cursor)
        assert [event.task.id for event in mine] == [other.id]
    middle, _, _ = await log_of(ann, events[2].cursor)
    assert [event.task.id for event in middle] == [task.id for task in made[3:]]


async def _told(caller: Caller, after: str, number: int) -> bool:
    return len((await log_of(caller, after, all_owners=True))[0]) == number


async def test_a_page_of_the_log_is_bounded_in_bytes(ann: Caller) -> None:
    start = await ann.call("ListEvents")
    made = [(await make(ann, payload=json.dumps({"x": "y" * 200_000}))).id for _ in range(25)]
    await eventually(lambda: _told(ann, start.cursor, 25))
    events, _, more = await log_of(ann, start.cursor)
    assert [event.task.id for event in events] == made
    assert len(more) == 3
    page = await ann.call("ListEvents", after=start.cursor)
    # What a client takes without being told to take more.
    assert 1_500_000 < page.ByteSize() < 4 * 1024 * 1024


async def test_a_place_that_the_log_does_not_have_is_told(server: Server, ann: Caller) -> None:
    assert server.app is not None
    feed = server.app.parts.feed
    gone = encode_log_cursor(LogCursor(b"8 bytes!", feed.position))
    page = await ann.call("ListEvents", after=gone)
    assert (page.recovered, page.cursor, page.more) == (False, feed.cursor(feed.position), False)


async def test_a_call_whose_time_is_over_leaves_no_statement_behind(
    server: Server, ann: Caller, database_url: str
) -> None:
    task = await make(ann)
    connection = await asyncpg.connect(database_url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def waits() -> bool:
        async with asyncio.timeout(30):
            found: int = await watcher.fetchval(waiting)
            return found > 0

    async def waits_no_more() -> bool:
        return not await waits()

    watcher = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT * FROM tasks WHERE id = $1 FOR UPDATE", task.id)
            request = pb.CancelTaskRequest(id=task.id)
            for leave in ("cancel", "deadline"):
                if leave == "cancel":
                    call = ann.begin("CancelTask", request)
                    await eventually(waits)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                else:
                    call = await with_deadline(lambda time: ann.begin("CancelTask", request, timeout=time), waits)
                    assert (await refusal_of(call)).code is Code.DEADLINE_EXCEEDED
                # While the row is still locked.
                await eventually(waits_no_more)
    finally:
        await connection.close()
        await watcher.close()
    assert (await ann.call("GetTask", id=task.id)).task.status == pb.TASK_STATUS_NEW


async def test_an_outage_is_unavailable_and_passes(new_cluster: Any) -> None:
    cluster = await new_cluster()
    async with (
        Taskd(database_url=cluster.url, role="api", http="127.0.0.1:0", grpc="127.0.0.1:0") as app,
        calling(app.grpc_address) as ann,
    ):
        task = await make(ann)
        await cluster.stop()
        refusal = await ann.refused("CreateTask", task=pb.NewTask(title="t"))
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
        assert refusal.retry_after > 0
        assert "127.0.0.1" not in (refusal.message or "")
        await cluster.start()

        async def heals() -> bool:
            try:
                return bool((await ann.call("UpdateTask", id=task.id, patch=pb.TaskPatch(title="u"))).task.title == "u")
            except grpc.RpcError:
                return False

        await eventually(heals)


async def test_a_search_finds_what_rest_finds(ann: Caller, rest: httpx.AsyncClient) -> None:
    for title in ("Квартальные отчёты", "Годовой отчёт", "Resizing images"):
        await make(ann, title=title)
    found = await ann.call("SearchTasks", query="отчет", limit=1)
    by_rest = (await rest.get("/search", params={"query": "отчет", "limit": 1})).json()
    assert [json.loads(json_of(one.task)) for one in found.results] == [one["task"] for one in by_rest["results"]]
    assert [{"title": one.highlights.title, "description": one.highlights.description} for one in found.results] == [
        one["highlights"] for one in by_rest["results"]
    ]
    assert (found.total, found.total_exact, bool(found.next_cursor)) == (2, True, True)
    second = await ann.call("SearchTasks", query="отчет", limit=1, cursor=found.next_cursor)
    assert {found.results[0].task.title, second.results[0].task.title} == {"Квартальные отчёты", "Годовой отчёт"}
    assert (await ann.call("SearchTasks", query="resi", prefix=True)).total == 1
    nothing = await ann.call("SearchTasks", query="")
    assert (nothing.total, nothing.hint != "") == (0, True)
