"""The cache in Redis: shared by processes, and not missed when it is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.deploy.programs import needs
from tests.guarantees.test_cache import create, requests_of
from tests.redis_servers import RedisServer
from tests.running import Server, embedded
from tests.waiting import eventually

pytestmark = needs("redis-server")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of the test's own, running."""
    server = RedisServer(tcp=True)
    server.start()
    yield server
    server.resume()
    server.remove()


def settings(redis: RedisServer, **more: Any) -> dict[str, Any]:
    return {"role": "api", "cache": redis.url, **more}


async def detail(client: httpx.AsyncClient) -> str:
    """Return what readiness says of the cache; it is ready all the time."""
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    return str(answer.json()["parts"]["cache"]["detail"])


async def is_up(client: httpx.AsyncClient) -> bool:
    up = "\ntaskd_cache_up 1\n" in (await client.get("/metrics")).text
    return up and await detail(client) == "ok"


async def is_down(client: httpx.AsyncClient) -> bool:
    down = "\ntaskd_cache_up 0\n" in (await client.get("/metrics")).text
    return down and "reads go to the database" in await detail(client)


async def hits(server: Server, client: httpx.AsyncClient, path: str) -> bool:
    """Read a task, and return whether that was a hit."""
    before = requests_of(server, "task")["hit"]
    assert (await client.get(path)).status_code == 200
    return requests_of(server, "task")["hit"] > before


@contextlib.asynccontextmanager
async def two_of(
    first: str, second: str, redis: RedisServer
) -> AsyncIterator[tuple[tuple[Server, httpx.AsyncClient], tuple[Server, httpx.AsyncClient]]]:
    """Run two processes on one Redis, each on its database; yields them with a client of each, once Redis is in use."""
    async with (
        embedded(first, **settings(redis)) as one,
        embedded(second, **settings(redis)) as two,
        one.client() as here,
        two.client() as there,
    ):
        await eventually(lambda: is_up(here))
        await eventually(lambda: is_up(there))
        yield (one, here), (two, there)


async def test_what_one_process_has_read_is_a_hit_in_another(database_url: str, redis: RedisServer) -> None:
    async with two_of(database_url, database_url, redis) as ((one, here), (two, there)):
        path = await create(here)
        await eventually(lambda: hits(one, here, path))
        assert await hits(two, there, path)
        assert (await there.get(path)).content == (await here.get(path)).content
        for n in range(20):
            assert (await here.patch(path, json={"title": f"title {n}"})).status_code == 200
            assert (await here.get(path)).json()["title"] == f"title {n}"

            async def seen(n: int = n) -> bool:
                one, page = await asyncio.gather(there.get(path), there.get("/tasks"))
                titles = {one.json()["title"], page.json()["tasks"][0]["title"]}
                return titles == {f"title {n}"}

            await eventually(seen)


async def test_two_databases_on_one_server_do_not_meet(
    database_url: str, empty_database_url: str, redis: RedisServer
) -> None:
    async with two_of(database_url, empty_database_url, redis) as ((one, here), (_, there)):
        path = await create(here)
        await eventually(lambda: hits(one, here, path))
        assert (await here.get("/tasks")).json()["tasks"]
        assert (await there.get(path)).status_code == 404
        assert (await there.get("/tasks")).json()["tasks"] == []


@pytest.mark.parametrize("how", ["kill", "suspend"])
async def test_in_mid_run_it_goes_and_comes_back(
    database_url: str, redis: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskd.service")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith("cache")]

    async with embedded(database_url, **settings(redis)) as server, server.client() as client:
        await eventually(lambda: is_up(client))
        path = await create(client)
        await eventually(lambda: hits(server, client, path))
        caplog.clear()
        getattr(redis, how)()
        for n in range(50):
            # From here on the database answers: reads, writes, and reads after writes.
            assert (await client.patch(path, json={"title": f"away {n}"})).status_code == 200
            assert (await client.get(path)).json()["title"] == f"away {n}"
        await eventually(lambda: is_down(client))
        [line] = lines()
        assert "trying again" in line, "one line, however many reads"
        redis.start() if how == "kill" else redis.resume()
        await eventually(lambda: is_up(client))
        assert (await client.get(path)).json()["title"] == "away 49", "what ended while it was away is not there"
        await eventually(lambda: hits(server, client, path))
        # A busy machine may be taken for an outage; each one has its two lines all the same.
        assert ["works again" in line for line in lines()] == [False, True] * (len(lines()) // 2)


async def test_a_server_that_is_not_there_keeps_nobody_from_starting(database_url: str) -> None:
    redis = RedisServer(tcp=True)
    async with embedded(database_url, **settings(redis)) as server, server.client() as client:
        path = await create(client)
        assert (await client.get(path)).status_code == 200
        await eventually(lambda: is_down(client))
        redis.start()
        await eventually(lambda: is_up(client))
        await eventually(lambda: hits(server, client, path))
    redis.remove()


async def test_what_died_with_a_process_is_not_believed_by_the_next(database_url: str, redis: RedisServer) -> None:
    """A process that ends between its commit and the end of the entry leaves a state that nobody may be given."""
    async with embedded(database_url, **settings(redis)) as server, server.client() as client:
        await eventually(lambda: is_up(client))
        path = await create(client)
        await eventually(lambda: hits(server, client, path))
        assert server.app is not None
        # Whatever was changed behind its back: neither it nor the log of the next process tells of it.
        await server.app.parts.database.execute("ALTER TABLE task_states DISABLE TRIGGER log_update")
        await server.app.parts.database.execute("UPDATE task_states SET version = 7")
    async with embedded(database_url, **settings(redis)) as server, server.client() as client:
        await eventually(lambda: is_up(client))
        assert (await client.get(path)).json()["version"] == 7
