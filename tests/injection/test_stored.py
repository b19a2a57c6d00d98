"""What users write is data to the database: it comes back exactly, by every way, and nothing else has changed."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import asyncpg
import httpx
import pytest

from taskd import Context, Task, Taskd
from taskd.domain.model import Status
from taskd.v1 import taskd_pb2 as pb
from tests.fronts import both, served_by
from tests.injection.hostile import HALF, NUL, TEXTS
from tests.rpc.calling import Caller
from tests.rpc.working import attempt_of, done, reaches, working
from tests.running import Server, embedded
from tests.waiting import eventually

SHAPE = (
    # But for the partitions, which come with the hours.
    "SELECT relname, relkind, relnatts FROM pg_class "
    "WHERE relnamespace = 'public'::regnamespace AND relname !~ '^events_' ORDER BY 1",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT rolname, rolsuper FROM pg_roles ORDER BY 1",
)


async def shape(url: str) -> list[Any]:
    """Return what the database is made of, and its roles."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for query in SHAPE for row in await connection.fetch(query)]
    finally:
        await connection.close()


def body_of(text: str) -> dict[str, Any]:
    return {"title": text[:200], "description": text * 2, "kind": "nobody", "payload": {text: [text, {text: None}]}}


def has(task: dict[str, Any], body: dict[str, Any]) -> bool:
    return {name: task[name] for name in body} == body


@both
async def test_a_task_comes_back_exactly(database_url: str, front: str) -> None:
    before = await shape(database_url)
    async with served_by(front, database_url, role="api", cache="memory") as server, server.client() as client:
        bodies = [body_of(text) for text in TEXTS.values()]
        ids = []
        for body in bodies:
            made = await client.post("/tasks", json=body)
            assert made.status_code == 201, made.text
            ids.append(made.json()["id"])
            assert has((await client.get(f"/tasks/{ids[-1]}")).json(), body)
            patch = {"description": body["title"], "payload": {"more": body["payload"]}}
            changed = (await client.patch(f"/tasks/{ids[-1]}", json=patch)).json()
            assert changed["payload"] == {**body["payload"], **patch["payload"]}
            events = (await client.get(f"/tasks/{ids[-1]}/events")).json()["events"]
            assert has(events[0]["task"], body)
        listed = (await client.get("/tasks", params={"limit": 200, "order": "created_at"})).json()["tasks"]
        assert [task["id"] for task in listed] == ids
        assert [task["title"] for task in listed] == [body["title"] for body in bodies]
        batch = (await client.post("/tasks/batch", json={"tasks": bodies})).json()["tasks"]
        assert all(has(task, body) for task, body in zip(batch, bodies, strict=True))
    assert await shape(database_url) == before


@both
async def test_each_owner_sees_their_own_tasks_only(database_url: str, front: str) -> None:
    owners = [text.strip() for text in TEXTS.values()]
    async with served_by(front, database_url, role="api", cache="memory") as server, server.client() as client:
        del client.headers["X-Taskd-User"]
        for owner in owners:
            made = await client.post(f"/tasks?{urllib.parse.urlencode({'user': owner})}", json={"title": owner})
            assert made.json()["owner"] == owner
        for owner in owners:
            tasks = (await client.get("/tasks", params={"user": owner})).json()["tasks"]
            assert [task["owner"] for task in tasks] == [owner]


@pytest.mark.parametrize("text", [NUL, HALF], ids=["NUL", "half"])
async def test_what_cannot_be_stored_is_refused(database_url: str, text: str) -> None:
    async with embedded(database_url, role="api") as server, server.client() as client:
        for body in ({"title": text}, {"title": "t", "description": text}, {"title": "t", "payload": {"a": [text]}},
                     {"title": "t", "payload": {text: 1}}):  # fmt: skip
            answer = await client.post("/tasks", content=json.dumps(body), headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, body
        assert (await client.get("/tasks")).json()["tasks"] == []


async def ended(client: httpx.AsyncClient, task: dict[str, Any]) -> dict[str, Any]:
    async def final() -> dict[str, Any] | None:
        found: dict[str, Any] = (await client.get(f"/tasks/{task['id']}")).json()
        return found if found["finished_at"] else None

    return await eventually(final)  # type: ignore[return-value]


async def test_what_handlers_say_is_data_too(database_url: str) -> None:
    app = Taskd(database_url=database_url, auth="none", http="127.0.0.1:0", grpc="off")

    @app.handler("says")
    async def says(task: Task, ctx: Context) -> Any:
        text = json.loads(task.payload_json)["text"]
        await ctx.progress(0.5, text)
        return {text: text}

    @app.handler("fails", max_attempts=1)
    async def fails(task: Task, ctx: Context) -> Any:
        text = json.loads(task.payload_json)["text"]
        raise type(text[:50] or "E", (Exception,), {})(text)

    async with embedded(database_url, app) as server, server.client() as client:
        for text in TEXTS.values():
            said, failed = [
                await ended(client, (await client.post("/tasks", json=body)).json())
                for body in (
                    {"title": "t", "kind": "says", "payload": {"text": text}},
                    {"title": "t", "kind": "fails", "payload": {"text": text}, "max_attempts": 1},
                )
            ]
            assert (said["result"], said["progress_note"]) == ({text: text}, text)
            assert (failed["status"], failed["error"]["message"]) == ("failed", text)


async def test_what_a_handler_may_not_say_ends_the_attempt_and_not_the_worker(database_url: str) -> None:
    app = Taskd(database_url=database_url, auth="none", http="127.0.0.1:0", grpc="off")

    @app.handler("returns", max_attempts=1)
    async def returns(task: Task, ctx: Context) -> Any:
        return {"a": NUL} if "nul" in task.title else HALF

    @app.handler("raises", max_attempts=1)
    async def raises(task: Task, ctx: Context) -> Any:
        raise ValueError(NUL if "nul" in task.title else HALF)

    async with embedded(database_url, app) as server, server.client() as client:
        for kind in ("returns", "raises"):
            for title in ("nul", "half"):
                body = {"title": title, "kind": kind, "max_attempts": 1}
                task = await ended(client, (await client.post("/tasks", json=body)).json())
                assert task["status"] == "failed", task


async def test_a_worker_elsewhere_says_nothing_but_data(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server, working(server.app) as stream:
        assert server.app is not None
        await stream.hello("k", slots=1)
        for text in TEXTS.values():
            task = await server.app.tasks.create(title="t", kind="k", max_attempts=1)
            (sent,) = await stream.tasks()
            failure = {"type": text, "message": text}
            await stream.settle(done(sent, json.dumps(text)))
            assert json.loads((await reaches(server.app, task, Status.DONE)).result_json or "") == text
            task = await server.app.tasks.create(title="t", kind="k", max_attempts=1)
            (sent,) = await stream.tasks()
            result = done(sent)
            result.failure.type, result.failure.message = failure["type"], failure["message"]
            assert await stream.settle(result) == {(attempt_of(sent).task_id, 1): True}
            error = (await reaches(server.app, task, Status.FAILED)).error
            assert error is not None
            assert (error.type, error.message) == (text, text)


async def test_grpc_gives_back_exactly_too(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        assert server.app.grpc_address is not None
        caller = Caller(server.app.grpc_address)
        for text in TEXTS.values():
            payload = json.dumps({text: text})
            made = await caller.call("CreateTask", task=pb.NewTask(title=text[:200], kind="nobody", payload=payload))
            found = (await caller.call("GetTask", id=made.task.id)).task
            assert (found.title, json.loads(found.payload)) == (text[:200], {text: text})
        await caller.channel.close()


MOMENTS = [
    "0001-01-01T00:00:00Z", "0001-01-01T23:59:00+23:59", "0001-01-01T00:00:00.000001Z", "0001-01-02T00:00:00Z",
    "9999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00.999999-23:59", "9999-12-31T23:59:59.999998Z",
    "9999-12-31T23:59:60Z",
]  # fmt: skip


@both
async def test_no_moment_is_beyond_what_is_read_back(database_url: str, front: str) -> None:
    # PostgreSQL's infinities came back as times that nobody could write: no list, no event, and the log's reader died.
    async with served_by(front, database_url, role="api") as server, server.client() as client:
        taken = []
        for moment in MOMENTS:
            for path, body in (("/tasks", {"title": "t", "run_at": moment}),
                               ("/tasks/batch", {"tasks": [{"title": "t", "run_at": moment}]})):  # fmt: skip
                answer = await client.post(path, json=body)
                assert answer.status_code in (201, 422), (moment, answer.text)
                taken += [moment] if answer.status_code == 201 else []
            for name in ("created_after", "created_before"):
                answer = await client.get("/tasks", params={name: moment})
                assert answer.status_code in (200, 422), (moment, answer.text)
        assert sorted(set(taken)) == [MOMENTS[n] for n in (2, 3, 5, 6)]
        listed = (await client.get("/tasks")).json()["tasks"]
        assert len(listed) == len(taken)
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM task_states WHERE NOT isfinite(run_at)") == 0
    finally:
        await connection.close()


def _queries(text: str) -> list[str]:
    told = urllib.parse.quote(text)
    names = ("status", "kind", "owner", "created_after", "created_before", "limit", "cursor", "order", text)
    return [
        *[f"/tasks?{urllib.parse.quote(name)}={told}" for name in names],
        *[f"/search?query=x&{name}={told}" for name in ("status", "kind", "limit", "cursor", "prefix")],
        *[f"/search?query={told}&prefix={prefix}" for prefix in ("true", "false")],
        f"/tasks/{urllib.parse.quote(text, safe='')}",
        f"/metrics?format={told}",
        f"/{urllib.parse.quote(text, safe='')}",
    ]


@both
async def test_no_parameter_reaches_the_database_as_more_than_a_value(database_url: str, front: str) -> None:
    before = await shape(database_url)
    async with served_by(front, database_url, role="api") as server, server.client() as client:
        await client.post("/tasks", json={"title": "the one"})
        async with _as(server, "ben") as ben:
            await ben.post("/tasks", json={"title": "hidden x"})
        for text in [*TEXTS.values(), NUL]:
            for target in _queries(text):
                answer = await client.get(target)
                assert answer.status_code < 500, (target, answer.text)
                assert "hidden" not in answer.text, target
                assert "pg_" not in answer.headers.get("Link", "")
        assert [task["title"] for task in (await client.get("/tasks")).json()["tasks"]] == ["the one"]
    assert await shape(database_url) == before


def _as(server: Server, user: str) -> httpx.AsyncClient:
    return server.client(user)
