"""Names that look like parts of a key, or like commands, are neither to the cache in Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.deploy.programs import needs
from tests.injection.hostile import TEXTS
from tests.redis_servers import RedisServer
from tests.running import embedded

pytestmark = needs("redis-server")

OWNERS = ["a", "a:", "a:b", ":a", "1", "1:a", "val", "gen:a", "all", "*", "[a]", "a\x1fnew", "{a}", "{a}b"]
"""Pairs of which would be the same key, or a pattern for one, in a scheme that only joins."""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(tcp=True)
    server.start()
    yield server
    server.remove()


async def test_no_two_owners_share_what_is_kept(database_url: str, redis: RedisServer) -> None:
    owners = [*OWNERS, *[text.strip() for text in TEXTS.values()]]
    async with embedded(database_url, role="api", cache=redis.url) as server, server.client() as client:
        del client.headers["X-Taskd-User"]
        for owner in owners:
            assert (await client.post("/tasks", json={"title": owner}, params={"user": owner})).status_code == 201
        for owner, status in itertools.product(owners, (None, "new", "done")):
            params = {"user": owner} | ({"status": status} if status else {})
            # The second time from the cache.
            for _ in range(2):
                tasks = (await client.get("/tasks", params=params)).json()["tasks"]
                assert [task["owner"] for task in tasks] == ([] if status == "done" else [owner])
        answer = await client.get("/metrics")
        hits = [line for line in answer.text.splitlines() if 'cache="list",result="hit"' in line]
        assert int(hits[0].split()[-1]) >= 3 * len(owners)
        assert "\ntaskd_cache_up 1\n" in answer.text
