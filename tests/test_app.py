"""Embedding: all parts in the caller's loop, no global state, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import taskd
from taskd import Context, Retry, RetryPolicy, Task, Taskd
from taskd.errors import ConfigError, Conflict, Invalid, NotFound, StartError, Unavailable
from tests.running import embedded
from tests.waiting import eventually

ANY_PORT = "127.0.0.1:0"


def make(url: str, **settings: Any) -> Taskd:
    return Taskd(database_url=url, http=ANY_PORT, **settings)


async def status_of(app: Taskd, task_id: UUID) -> str:
    return (await app.tasks.get(task_id)).status.value


async def test_a_task_runs_through_a_handler_of_the_program(database_url: str) -> None:
    app = make(database_url)

    @app.handler("thumbnail", timeout=60, max_attempts=3)
    async def thumbnail(task: Task, ctx: Context) -> dict[str, Any]:
        await ctx.progress(0.5, "half way")
        return {"size": task.payload["size"]}

    @app.handler("plain")
    def plain(task: Task, ctx: Context) -> str:
        return task.title.upper()

    @app.handler("again", retry=RetryPolicy(first=0.01, cap=0.01))
    async def again(task: Task, ctx: Context) -> int:
        if ctx.attempt == 1:
            raise Retry(after=0)
        return ctx.attempt

    async with app:
        made = [
            await app.tasks.create("Resize", kind="thumbnail", payload={"size": 7}, owner="ann"),
            await app.tasks.create("loud", kind="plain"),
            await app.tasks.create("twice", kind="again"),
        ]
        for task in made:
            await eventually(lambda task=task: _is(app, task.id, "done"))
        results = [(await app.tasks.get(task.id)).result for task in made]
        assert results == [{"size": 7}, "LOUD", 2]
        types = [event.type.value for event in (await app.tasks.history(made[0].id)).events]
        assert types == ["created", "started", "progress", "done"]
        assert made[0].owner == "ann"
        assert made[1].owner == "anonymous"


async def _is(app: Taskd, task_id: UUID, status: str) -> bool:
    return await status_of(app, task_id) == status


async def test_a_batch_takes_times_as_one_task_does(database_url: str) -> None:
    async with make(database_url, role="api") as app:
        late = datetime(2030, 1, 2, tzinfo=UTC)
        many = await app.tasks.create_many([{"title": "a", "run_at": late}, {"title": "b"}])
        assert many[0].run_at == late


async def test_the_calls_of_an_embedding_program(database_url: str) -> None:
    async with make(database_url, role="api") as app:
        soon = datetime.now(UTC) + timedelta(days=1)
        task = await app.tasks.create("a", run_at=soon, idempotency_key="k")
        assert (await app.tasks.create("a", run_at=soon, idempotency_key="k")).id == task.id
        assert task.run_at == soon
        many = await app.tasks.create_many([{"title": "b", "kind": "x"}, {"title": "c", "kind": "x"}], owner="bob")
        assert [(one.title, one.owner) for one in many] == [("b", "bob"), ("c", "bob")]
        page = await app.tasks.list(kind="x", status=["new", "done"], limit=1, order="created_at")
        assert [one.title for one in page.tasks] == ["b"]
        assert [one.title for one in (await app.tasks.list(created_after=task.created_at)).tasks] == ["c", "b"]
        assert (await app.tasks.update(task.id, title="z", priority=5)).priority == 5
        assert (await app.tasks.cancel(task.id)).status == "cancelled"
        assert (await app.tasks.retry(task.id)).status == "new"
        await app.tasks.delete(task.id)
        with pytest.raises(NotFound):
            await app.tasks.get(task.id)
        with pytest.raises(Conflict):
            await app.tasks.retry(many[0].id)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"title": ""}, "title"),
        ({"title": "t", "payload": {"a": object()}}, "payload"),
        ({"title": "t", "payload": {"a": float("nan")}}, "payload"),
        ({"title": "t", "colour": 1}, "colour"),
        ({"title": "\ud800"}, "title"),
        ({"title": "t", "run_at": "soon"}, "run_at"),
    ],
)
async def test_a_bad_field_is_named(database_url: str, fields: dict[str, Any], named: str) -> None:
    async with make(database_url, role="api") as app:
        with pytest.raises(Invalid, match=named):
            await app.tasks.create(**fields)


async def test_two_of_them_live_in_one_loop_on_two_databases(database_url: str, empty_database_url: str) -> None:
    one, two = make(database_url), make(empty_database_url)
    for app, word in ((one, "one"), (two, "two")):

        async def who(task: Task, ctx: Context, word: str = word) -> str:
            return word

        app.handler("who")(who)
    async with one, two:
        for app, word in ((one, "one"), (two, "two")):
            task = await app.tasks.create("t", kind="who")
            await eventually(lambda app=app, task=task: _is(app, task.id, "done"))
            assert (await app.tasks.get(task.id)).result == word
            assert len((await app.tasks.list()).tasks) == 1


async def test_nothing_is_left_behind(database_url: str) -> None:
    async def once() -> None:
        async with make(database_url, handlers="taskd.worker.samples") as app:
            task = await app.tasks.create("t", kind="echo")
            await eventually(lambda: _is(app, task.id, "done"))

    def held() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    await once()
    before = held()
    for _ in range(3):
        await once()
    await eventually(lambda: held() == before)


async def test_stopping_is_safe_before_the_start_and_twice(database_url: str) -> None:
    app = make(database_url)
    await app.stop()
    with pytest.raises(StartError, match="not started"):
        _ = app.tasks
    await app.start()
    await app.stop()
    await app.stop()
    await app.start()
    assert app.http_address is not None
    await app.stop()


async def test_a_start_that_fails_leaves_nothing(database_url: str) -> None:
    tasks = len(asyncio.all_tasks())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match="TASKD_HTTP"):
            async with Taskd(database_url=database_url, http=address):
                pytest.fail("it can't listen there")
    with pytest.raises(Unavailable):
        async with make("postgresql://nobody@127.0.0.1:1/none"):
            pytest.fail("there is no database")
    await eventually(lambda: len(asyncio.all_tasks()) == tasks)


async def test_a_worker_serves_its_health_and_no_more(database_url: str) -> None:
    async with embedded(database_url, role="worker") as server, server.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/tasks")).status_code == 404
        assert (await client.get("/ws")).status_code == 404


async def test_a_kind_without_a_handler_stays_new_and_readiness_says_so(database_url: str) -> None:
    async with embedded(database_url) as server, server.client() as client:
        task = (await client.post("/tasks", json={"title": "t", "kind": "unheard-of"})).json()

        async def told() -> bool:
            parts = (await client.get("/readyz")).json()["parts"]
            return "unheard-of" in parts["workers"]["detail"]

        await eventually(told)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get(f"/tasks/{task['id']}")).json()["status"] == "new"


async def test_a_part_that_dies_is_told_to_who_runs_it(database_url: str) -> None:
    async with make(database_url) as app:

        async def bug() -> None:
            raise ZeroDivisionError

        app.parts.supervisor.spawn(bug(), "a bug")
        with pytest.raises(ZeroDivisionError):
            await app.failed


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"colour": "red"}, "colour"),
        ({"upstream_token": "tk_short"}, "upstream_token"),
        ({"http": "0.0.0.0:80"}, "loopback"),
        ({"role": "gateway"}, "TASKD_UPSTREAM"),
        ({"cache": "memcached://here"}, "cache"),
        ({"cache_bytes": 1}, "cache_bytes"),
        ({"metrics_buckets": "2,1"}, "metrics_buckets"),
    ],
)
def test_a_bad_setting_is_refused_at_once(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Taskd(**settings)


def test_a_kind_has_one_handler() -> None:
    app = Taskd()
    app.handler("x")(lambda task, ctx: None)
    with pytest.raises(ConfigError, match="x"):
        app.handler("x")(lambda task, ctx: None)


def test_the_package_gives_what_it_promises() -> None:
    for name in taskd.__all__:
        assert getattr(taskd, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = taskd.nothing
