"""What a read through the cache may give, over sockets and a database, in one process and in several."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from taskd import Context, Task, Taskd
from taskd.domain.model import NewTask, Status
from taskd.service.feed import LogFeed
from taskd.store import leases
from taskd.store.listener import Listener
from taskd.store.tasks import TaskStore
from taskd.worker import lease
from tests.fronts import both, served_by
from tests.running import Server, embedded, receive
from tests.waiting import eventually

CACHED: dict[str, Any] = {"cache": "memory"}
NEVER = 3600.0


def requests_of(server: Server, cache: str) -> dict[str, int]:
    """Return what the cache was asked, by result."""
    assert server.app is not None
    family = server.app.parts.catalog.cache_requests
    return {result: int(family.labels(cache, result).value) for result in ("hit", "miss", "coalesced")}


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    """Create a task, and return its path."""
    answer = await client.post("/tasks", json={"title": "a task", "kind": "nobody", **fields})
    assert answer.status_code == 201
    return answer.headers["Location"]


@both
async def test_a_hit_is_the_same_answer_with_the_same_tag(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api", **CACHED) as server, server.client() as client:
        path = await create(client)
        for target in (path, "/tasks?status=new"):
            first, second = await client.get(target), await client.get(target)
            assert first.content == second.content
            assert first.headers["ETag"] == second.headers["ETag"]
            assert first.headers["ETag"].startswith("W/") == target.startswith("/tasks?")
            known = await client.get(target, headers={"If-None-Match": first.headers["ETag"]})
            assert (known.status_code, known.content) == (304, b"")
        assert requests_of(server, "task") == {"hit": 2, "miss": 1, "coalesced": 0}
        assert requests_of(server, "list") == {"hit": 2, "miss": 1, "coalesced": 0}


@both
async def test_after_the_answer_to_a_change_no_read_gives_what_was_before(database_url: str, front: str) -> None:
    """Readers ask all the time, so that there always is a load for a change to race with.

    They have a client of their own: the pool of httpx lets one request wait for as long as others take each connection
    in the turn in which it is free.
    """
    running = served_by(front, database_url, role="api", **CACHED)
    async with running as server, server.client() as client, server.client() as reader:
        path = await create(client)
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                await reader.get(path)
                await reader.get("/tasks?status=new")

        readers = [asyncio.create_task(ask()) for _ in range(4)]
        for n in range(30):
            assert (await client.patch(path, json={"title": f"title {n}"})).status_code == 200
            one, page = await asyncio.gather(client.get(path), client.get("/tasks?status=new"))
            assert one.json()["title"] == f"title {n}"
            assert [task["title"] for task in page.json()["tasks"]] == [f"title {n}"]
        done.set()
        await asyncio.gather(*readers)
        assert requests_of(server, "task")["hit"] > 0


async def test_workers_are_no_readers_of_the_cache(database_url: str) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", **CACHED)

    @app.handler("busy")
    async def busy(task: Task, ctx: Context) -> None:
        await ctx.progress(0.5)

    async with embedded(database_url, app) as server, server.client() as client:
        body = {"tasks": [{"title": f"t{n}", "kind": "busy"} for n in range(200)]}
        assert (await client.post("/tasks/batch", json=body)).status_code == 201

        def finished() -> bool:
            return app.parts.catalog.finished.labels("busy", "done").value == 200

        await eventually(finished)
        for cache in ("task", "list"):
            assert requests_of(server, cache) == {"hit": 0, "miss": 0, "coalesced": 0}


@both
async def test_whoever_is_told_of_a_change_and_then_reads_sees_it(database_url: str, front: str) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", grpc="127.0.0.1:0", **CACHED)

    @app.handler("quick")
    async def quick(task: Task, ctx: Context) -> int:
        return 1

    running = served_by(front, database_url, app, **CACHED)
    async with running as server, server.client() as client, server.socket() as socket:
        await receive(socket)
        for _ in range(25):
            path = await create(client, kind="quick")
            version = 0
            while version < 3:
                told = (await receive(socket))["event"]["task"]
                version = told["version"]
                assert (await client.get(path)).json()["version"] >= version
                page = (await client.get("/tasks?limit=1")).json()["tasks"]
                assert page[0]["version"] >= version


async def _reads(client: httpx.AsyncClient, path: str, title: str) -> bool:
    return bool((await client.get(path)).json()["title"] == title)


async def _lists(client: httpx.AsyncClient, title: str) -> bool:
    return [task["title"] for task in (await client.get("/tasks")).json()["tasks"]] == [title]


@pytest.fixture
def nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No renewal of a lease comes by itself, and no look at the log: what one process knows of another, it was told."""
    for name in ("RENEW_EVERY", "FENCE"):
        monkeypatch.setattr(lease, name, NEVER)
    monkeypatch.setattr(leases, "EXPIRES", NEVER)
    monkeypatch.setitem(LogFeed.__init__.__kwdefaults__, "poll", NEVER)


@pytest.mark.usefixtures("nothing_by_itself")
async def test_another_process_is_told_by_the_log_and_not_by_its_poll(database_url: str) -> None:
    settings: dict[str, Any] = {"role": "api", "cache_ttl": NEVER, **CACHED}
    async with embedded(database_url, **settings) as one, embedded(database_url, **settings) as two:
        async with one.client() as here, two.client() as there:
            # The second process has only just come: the first one has to learn of it by what it says itself.
            path = await create(here)
            for n in range(20):
                await asyncio.gather(there.get(path), there.get("/tasks"))
                await here.patch(path, json={"title": f"title {n}"})
                await eventually(lambda n=n: _reads(there, path, f"title {n}"))
                await eventually(lambda n=n: _lists(there, f"title {n}"))
        assert requests_of(two, "task")["hit"] > 0


@pytest.mark.usefixtures("nothing_by_itself")
async def test_what_was_committed_before_a_process_listened_is_read_when_it_does(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", role="api", **CACHED)
    start = Listener.start

    async def start_and_create(self: Listener) -> None:
        await start(self)
        # By somebody who does not know of this process.
        await TaskStore(app.parts.database).insert([("ann", NewTask("a task"))])

    monkeypatch.setattr(Listener, "start", start_and_create)
    async with embedded(database_url, app):
        await eventually(lambda: app.parts.census.counts.get(Status.NEW) == 1)


async def test_with_another_database_nothing_of_the_one_before_is_given(database_url: str) -> None:
    async with embedded(database_url, role="api", **CACHED) as server, server.client() as client:
        assert server.app is not None
        parts = server.app.parts
        path = await create(client)
        assert (await client.get(path)).json()["version"] == 1
        await eventually(lambda: parts.census.counts.get(Status.NEW) == 1)
        # As after a restore: another state, of which no event tells, and another name of the log.
        for statement in (
            "ALTER TABLE task_states DISABLE TRIGGER USER",
            "UPDATE task_states SET version = 7, status = 'cancelled', finished_at = now()",
            "SELECT recount_task_totals()",
            "UPDATE meta SET uuid = gen_random_uuid()",
        ):
            await parts.database.execute(statement)
        parts.feed.doubt()
        await eventually(lambda: parts.census.counts.get(Status.CANCELLED) == 1)
        assert (await client.get(path)).json()["version"] == 7


async def test_with_the_log_cut_off_nothing_is_older_than_entries_live(database_url: str) -> None:
    settings: dict[str, Any] = {"role": "api", "cache_ttl": 0.5, **CACHED}
    async with embedded(database_url, **settings) as one, embedded(database_url, **settings) as two:
        assert two.app is not None
        async with one.client() as here, two.client() as there:
            path = await create(here)
            await two.app.parts.feed.stop()
            await asyncio.gather(there.get(path), there.get("/tasks"))
            await here.patch(path, json={"title": "new"})
            await eventually(lambda: _reads(there, path, "new"))
            await eventually(lambda: _lists(there, "new"))


async def test_readiness_tells_of_the_cache(database_url: str) -> None:
    async with embedded(database_url, role="api", **CACHED) as server, server.client() as client:
        assert (await client.get("/readyz")).json()["parts"]["cache"] == {"ok": True, "detail": "ok"}
    async with embedded(database_url, role="api", cache="off") as server, server.client() as client:
        assert "cache" not in (await client.get("/readyz")).json()["parts"]
