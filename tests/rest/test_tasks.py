"""Every REST call, over a socket and a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jsonschema import Draft202012Validator

from taskd import Taskd
from tests.fronts import FRONTS, both, served_by
from tests.running import Server
from tests.waiting import eventually

NOBODY = str(uuid4())
WAITING = {"title": "waits", "kind": "nobody"}


@pytest.fixture(params=FRONTS)
async def server(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Server]:
    """A server without workers: what is created waits."""
    async with served_by(request.param, database_url, role="api") as found:
        yield found


@pytest.fixture
async def ann(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client("ann") as client:
        yield client


@pytest.fixture
async def ben(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client("ben") as client:
        yield client


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Create a task that waits."""
    answer = await client.post("/tasks", json=WAITING | fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return an answer's problem, after a look at its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    return problem


async def test_a_task_is_created_with_its_defaults(ann: httpx.AsyncClient) -> None:
    answer = await ann.post("/tasks", json={"title": "Задача"})
    task = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/tasks/{task['id']}"
    assert answer.headers["ETag"] == f'"{task["version"]}"'
    given = {name: task[name] for name in ("owner", "kind", "title", "description", "payload", "priority", "attempt")}
    assert given == {
        "owner": "ann", "kind": "default", "title": "Задача", "description": "", "payload": {}, "priority": 0,
        "attempt": 0,
    }  # fmt: skip
    assert (task["status"], task["max_attempts"], task["timeout_seconds"]) == ("new", 5, 300)
    assert (await ann.get(answer.headers["Location"])).json() == task


async def test_a_task_of_later_is_scheduled(ann: httpx.AsyncClient) -> None:
    task = await create(ann, run_at="2199-01-01T00:00:00.5+01:00", payload={"a": [1, 1.5, "ё"]})
    assert (task["status"], task["run_at"]) == ("scheduled", "2198-12-31T23:00:00.500000Z")
    assert task["payload"] == {"a": [1, 1.5, "ё"]}


async def test_the_same_key_gives_the_first_answer_again(ann: httpx.AsyncClient, ben: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k-1"}
    first, again = [await ann.post("/tasks", json=WAITING, headers=key) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    # The order of members and spaces between them are not what a body says.
    same = await ann.post(
        "/tasks", content=b'{"kind":"nobody",  "title":"waits"}', headers=key | {"Content-Type": "application/json"}
    )
    assert same.json()["id"] == first.json()["id"]
    assert problem_of(await ann.post("/tasks", json=WAITING | {"priority": 1}, headers=key), 422)["type"] == (
        "/problems/idempotency-key-reused"
    )
    assert (await ben.post("/tasks", json=WAITING, headers=key)).json()["id"] != first.json()["id"]
    assert len((await ann.get("/tasks")).json()["tasks"]) == 1


async def test_a_key_holds_for_calls_at_the_same_time(ann: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "race"}
    answers = await asyncio.gather(*[ann.post("/tasks", json=WAITING, headers=key) for _ in range(10)])
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_batch_is_created_in_its_order_or_not_at_all(ann: httpx.AsyncClient) -> None:
    bodies = [WAITING | {"title": f"t{n}"} for n in range(1000)]
    answer = await ann.post("/tasks/batch", json={"tasks": bodies})
    assert answer.status_code == 201
    assert [task["title"] for task in answer.json()["tasks"]] == [body["title"] for body in bodies]
    for bad in ([], [*bodies, WAITING], [WAITING, {}]):
        problem_of(await ann.post("/tasks/batch", json={"tasks": bad}), 422)
    listed = (await ann.get("/tasks?limit=1&order=-created_at")).json()["tasks"]
    assert listed[0]["title"].startswith("t")


async def test_another_users_task_is_not_there(ann: httpx.AsyncClient, ben: httpx.AsyncClient) -> None:
    task = await create(ann)
    path = f"/tasks/{task['id']}"
    for method, target, body in [
        ("GET", path, None), ("PATCH", path, {"title": "x"}), ("DELETE", path, None), ("POST", f"{path}/cancel", None),
        ("POST", f"{path}/retry", None), ("GET", f"{path}/events", None),
    ]:  # fmt: skip
        foreign = problem_of(await ben.request(method, target, json=body), 404)
        missing = problem_of(await ann.request(method, target.replace(task["id"], NOBODY), json=body), 404)
        assert foreign["detail"].replace(task["id"], NOBODY) == missing["detail"]
    assert (await ben.get("/tasks")).json() == {"tasks": [], "next_cursor": None}
    problem_of(await ben.get("/tasks?owner=ann"), 403)
    assert (await ann.get(path)).json() == task


async def test_a_known_task_is_not_sent_again(ann: httpx.AsyncClient) -> None:
    task = await create(ann)
    path, tag = f"/tasks/{task['id']}", f'"{task["version"]}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await ann.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert (await ann.get(path, headers={"If-None-Match": '"0"'})).json() == task
    head = await ann.head(path)
    assert (head.status_code, head.headers["ETag"], head.content) == (200, tag, b"")
    assert int(head.headers["Content-Length"]) == len(
        (await ann.get(path, headers={"Accept-Encoding": "identity"})).content
    )


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json"])
async def test_a_patch_is_merged(ann: httpx.AsyncClient, media_type: str) -> None:
    task = await create(ann, payload={"keep": 1, "drop": 2, "deep": {"a": 1}}, priority=7, description="old")
    patch = {"title": "new", "description": None, "priority": None, "payload": {"drop": None, "deep": {"b": 2}}}
    answer = await ann.patch(f"/tasks/{task['id']}", content=json.dumps(patch), headers={"Content-Type": media_type})
    found = answer.json()
    assert answer.status_code == 200
    assert (found["title"], found["description"], found["priority"]) == ("new", "", 0)
    assert found["payload"] == {"keep": 1, "deep": {"a": 1, "b": 2}}
    assert found["version"] > task["version"]
    assert answer.headers["ETag"] == f'"{found["version"]}"'


async def test_a_stale_change_is_refused(ann: httpx.AsyncClient) -> None:
    task = await create(ann)
    path, tag = f"/tasks/{task['id']}", f'"{task["version"]}"'
    assert (await ann.patch(path, json={"title": "1"}, headers={"If-Match": f'"77", {tag}'})).status_code == 200
    for stale in (tag, '"never"', '"0"', '"99999999999999999999"'):
        problem_of(await ann.patch(path, json={"title": "2"}, headers={"If-Match": stale}), 412)
        problem_of(await ann.delete(path, headers={"If-Match": stale}), 412)
    # RFC 9110 13.1.1: a weak tag never matches.
    current = (await ann.get(path)).headers["ETag"]
    problem_of(await ann.patch(path, json={"title": "2"}, headers={"If-Match": f"W/{current}"}), 412)
    assert (await ann.patch(path, json={"title": "3"}, headers={"If-Match": "*"})).status_code == 200
    current = (await ann.get(path)).headers["ETag"]
    assert (await ann.delete(path, headers={"If-Match": current})).status_code == 204


async def test_a_final_task_keeps_what_it_ran_with(ann: httpx.AsyncClient) -> None:
    path = f"/tasks/{(await create(ann))['id']}"
    await ann.post(f"{path}/cancel")
    assert (await ann.patch(path, json={"title": "still", "description": "may change"})).status_code == 200
    for name, value in {"priority": 1, "payload": {}, "run_at": None, "max_attempts": 3, "timeout_seconds": 1}.items():
        problem_of(await ann.patch(path, json={name: value}), 409)


async def test_a_task_is_cancelled_and_tried_again_and_deleted(ann: httpx.AsyncClient) -> None:
    path = f"/tasks/{(await create(ann))['id']}"
    problem_of(await ann.post(f"{path}/retry"), 409)
    for _ in range(2):
        answer = await ann.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = (await ann.post(f"{path}/retry")).json()
    assert (again["status"], again["attempt"], again["finished_at"]) == ("new", 0, None)
    history = (await ann.get(f"{path}/events")).json()["events"]
    assert [event["type"] for event in history] == ["created", "cancelled", "updated"]
    assert [event["task"]["version"] for event in history] == sorted(event["task"]["version"] for event in history)
    deleted = await ann.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for call in (ann.get(path), ann.delete(path), ann.post(f"{path}/cancel"), ann.get(f"{path}/events")):
        problem_of(await call, 404)


async def test_a_history_comes_in_pages(ann: httpx.AsyncClient) -> None:
    path = f"/tasks/{(await create(ann))['id']}"
    for number in range(11):
        await ann.patch(path, json={"title": f"t{number}"})
    whole = (await ann.get(f"{path}/events")).json()
    assert (len(whole["events"]), whole["next_cursor"]) == (12, None)
    for limit in (1, 5, 11, 12):
        told: list[Any] = []
        target, sizes = f"{path}/events?limit={limit}", []
        while target:
            answer = await ann.get(target)
            page = answer.json()
            told += page["events"]
            sizes.append(len(page["events"]))
            target = answer.links["next"]["url"] if page["next_cursor"] else ""
        assert told == whole["events"]
        assert sizes == [limit] * (12 // limit) + ([12 % limit] if 12 % limit else [])
    for query, field in (("limit=0", "limit"), ("limit=201", "limit"), ("cursor=garbage", "cursor"), ("x=1", "x")):
        problem = problem_of(await ann.get(f"{path}/events?{query}"), 422)
        assert [fault["field"] for fault in problem["errors"]] == [field]
    cursor = (await ann.get(f"{path}/events?limit=1")).json()["next_cursor"]
    other = f"/tasks/{(await create(ann))['id']}"
    assert problem_of(await ann.get(f"{other}/events?cursor={cursor}"), 422)["errors"][0]["field"] == "cursor"


async def test_pages_follow_one_another_without_gap_or_repetition(ann: httpx.AsyncClient) -> None:
    made = await ann.post("/tasks/batch", json={"tasks": [WAITING | {"title": f"t{n}"} for n in range(25)]})
    ids = [task["id"] for task in made.json()["tasks"]]
    for order, expected in (("created_at", ids), ("-created_at", ids[::-1])):
        seen, target = [], f"/tasks?limit=7&order={order}&status=new&status=running&user=ann"
        while target:
            answer = await ann.get(target)
            page = answer.json()
            seen += [task["id"] for task in page["tasks"]]
            target = answer.links.get("next", {}).get("url", "")
            assert bool(target) == (page["next_cursor"] is not None)
            # What comes in meanwhile does not move what was there.
            if order == "-created_at":
                await create(ann)
        assert [one for one in seen if one in ids] == expected
        assert len(seen) == len(set(seen))


async def test_a_list_is_filtered(ann: httpx.AsyncClient) -> None:
    first = await create(ann, kind="a")
    second = await create(ann, kind="b", run_at="2199-01-01T00:00:00Z")

    async def listed(**query: Any) -> list[str]:
        return [task["id"] for task in (await ann.get("/tasks", params=query)).json()["tasks"]]

    assert await listed(kind="a") == [first["id"]]
    assert await listed(status="scheduled") == [second["id"]]
    assert await listed(status=["scheduled", "new"]) == [second["id"], first["id"]]
    assert await listed(created_after=first["created_at"], created_before="2199-01-01T00:00:00Z") == [second["id"]]
    assert await listed(created_before=second["created_at"]) == [first["id"]]
    assert await listed(owner="ann", status="done") == []
    cursor = (await ann.get("/tasks?limit=1")).json()["next_cursor"]
    other = problem_of(await ann.get(f"/tasks?limit=1&kind=a&cursor={cursor}"), 422)
    assert other["errors"][0]["field"] == "cursor"


@both
async def test_a_task_runs_and_the_stream_tells_it(database_url: str, front: str) -> None:
    samples = ("taskd.worker.samples",)
    async with served_by(front, database_url, handlers=samples) as server, server.client() as client:
        async with client.stream("GET", "/events") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: welcome"
            made = (await client.post("/tasks", json={"title": "t", "kind": "echo", "payload": {"a": 1}})).json()
            told: list[tuple[str, Any]] = []
            name = "welcome"
            async with asyncio.timeout(30):
                while not told or told[-1][0] != "done":
                    line = await anext(lines)
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: ") and name != "welcome":
                        told.append((name, json.loads(line[6:])))
        assert [name for name, _ in told] == ["created", "started", "done"]
        assert [event["type"] for _, event in told] == ["created", "started", "done"]
        task = (await client.get(f"/tasks/{made['id']}")).json()
        assert task == told[-1][1]["task"]
        assert (task["status"], task["result"], task["attempt"]) == ("done", {"a": 1}, 1)
        problem_of(await client.post(f"/tasks/{made['id']}/cancel"), 409)


@both
async def test_a_running_task_is_not_deleted_and_its_cancellation_is_on_its_way(database_url: str, front: str) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", grpc="127.0.0.1:0")
    release = asyncio.Event()

    @app.handler("stubborn")
    async def stubborn(task: Any, ctx: Any) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await release.wait()
            raise

    async with served_by(front, database_url, app) as server, server.client() as client:
        path = f"/tasks/{(await create(client, kind='stubborn'))['id']}"

        async def status(wanted: str) -> bool:
            return bool((await client.get(path)).json()["status"] == wanted)

        await eventually(lambda: status("running"))
        problem_of(await client.delete(path), 409)
        problem_of(await client.patch(path, json={"priority": 3}), 409)
        for _ in range(2):
            answer = await client.post(f"{path}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "running")
            assert answer.json()["cancel_requested_at"] is not None
        release.set()
        await eventually(lambda: status("cancelled"))
        assert (await client.delete(path)).status_code == 204


async def test_real_answers_are_as_described(ann: httpx.AsyncClient) -> None:
    document = (await ann.get("/openapi.json")).json()
    task = await create(ann, payload={"n": 1})
    path = f"/tasks/{task['id']}"
    calls: list[tuple[str, str, str, Any]] = [
        ("POST", "/tasks", "/tasks", WAITING),
        ("POST", "/tasks", "/tasks", {"title": ""}),
        ("POST", "/tasks/batch", "/tasks/batch", {"tasks": [WAITING]}),
        ("GET", "/tasks", "/tasks?limit=1", None),
        ("GET", "/tasks", "/tasks?limit=0", None),
        ("GET", "/tasks", "/tasks?owner=ben", None),
        ("GET", "/tasks/{id}", path, None),
        ("GET", "/tasks/{id}", f"/tasks/{NOBODY}", None),
        ("PATCH", "/tasks/{id}", path, {"title": "x"}),
        ("POST", "/tasks/{id}/retry", f"{path}/retry", None),
        ("POST", "/tasks/{id}/cancel", f"{path}/cancel", None),
        ("POST", "/tasks/{id}/retry", f"{path}/retry", None),
        ("GET", "/tasks/{id}/events", f"{path}/events", None),
        ("DELETE", "/tasks/{id}", path, None),
        ("GET", "/healthz", "/healthz", None),
        ("GET", "/readyz", "/readyz", None),
        ("GET", "/ws", "/ws", None),
    ]
    for method, template, target, body in calls:
        answer = await ann.request(method, target, json=body)
        replies = document["paths"][template][method.lower()]["responses"]
        reply = replies.get(str(answer.status_code))
        assert reply is not None, f"{method} {target} answered {answer.status_code}: {answer.text}"
        if not answer.content:
            assert "content" not in reply
            continue
        schema = reply["content"][answer.headers["Content-Type"]]["schema"]
        Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())
        for name in reply.get("headers", ()):
            assert name in answer.headers or name == "Link" or name.startswith("RateLimit-")
