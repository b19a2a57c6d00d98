"""What tests of the cache share: a clock, supervisors, servers."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import pytest

from taskd.cache.redis import RedisCache
from taskd.runtime.supervisor import Supervisor
from tests.cache.looks import Cache, Make, unpack
from tests.redis_servers import RedisServer, path_of

_spaces = count(1)


class FakeClock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.stop()


def started(program: str) -> Iterator[RedisServer]:
    if path_of(program) is None:
        pytest.skip(f"no {program} on PATH, and none from a wheel")
    server = RedisServer(program)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all who leave it alive; each takes a namespace of its own."""
    yield from started("redis-server")


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """As `redis_server`, of Valkey."""
    yield from started("valkey-server")


@pytest.fixture
def new_redis() -> Iterator[Callable[..., RedisServer]]:
    """Makes private servers, not started, that the test may start, kill and suspend."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    servers: list[RedisServer] = []

    def make(**settings: str) -> RedisServer:
        tcp = bool(settings.pop("tcp", ""))
        servers.append(RedisServer(tcp=tcp, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.remove()


@pytest.fixture
def space() -> str:
    """A namespace that no other test has."""
    return f"test{next(_spaces)}"


@pytest.fixture
async def make(supervisor: Supervisor, space: str) -> AsyncIterator[Make]:
    made: list[Cache] = []

    def make(url: str, **options: Any) -> Cache:
        # Patient, so that a busy machine is no outage; tests of slowness ask for less.
        known: dict[str, Any] = {"ttl": 60, "namespace": lambda: space, "pack": bytes, "unpack": unpack, "timeout": 10}
        made.append(RedisCache(url, supervisor, **(known | options)))
        return made[-1]

    yield make
    for cache in made:
        await cache.stop()


@pytest.fixture
async def cache(make: Make, redis_server: RedisServer) -> Cache:
    cache = make(redis_server.url)
    await cache.start()
    return cache


@pytest.fixture
async def server(new_redis: Callable[..., RedisServer]) -> RedisServer:
    server = new_redis()
    server.start()
    return server
