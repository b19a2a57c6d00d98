"""The cache in Redis: settings, garbage, what is lost, how old things get, and how few resources it takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import redis

from taskd.cache.port import Found, Key
from taskd.cache.redis import LARGEST, RedisCache
from taskd.cache.server import Server
from taskd.errors import ConfigError
from taskd.runtime.supervisor import Supervisor
from tests.cache.looks import A, Cache, Make, keep, ticket
from tests.redis_servers import RedisServer
from tests.waiting import eventually


@pytest.mark.parametrize("url", ["redis://:pass/word@host:1", "http://host", "redis://host?nonsense=1", "redis://h:x"])
async def test_what_is_no_url_of_a_server_is_a_bad_setting_that_keeps_the_password(make: Make, url: str) -> None:
    with pytest.raises(ConfigError, match="TASKD_CACHE") as caught:
        make(url)
    assert "pass/" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_option_of_the_url_undoes_our_limits() -> None:
    pool = Server("redis://h?max_connections=99&socket_timeout=9&retry_on_timeout=yes&protocol=3", 1)._pool
    assert pool.max_connections == 3
    assert {name: pool.connection_kwargs[name] for name in ("socket_timeout", "retry_on_timeout", "protocol")} == {
        "socket_timeout": None,
        "retry_on_timeout": False,
        "protocol": 2,
    }


def test_whatever_an_error_says_the_password_is_left_out() -> None:
    server = Server("redis://user:hor%20se@h", 1)
    assert server.reason(OSError("it said hor se,\n  really")) == "Redis: it said ***, really"


def test_tls_is_asked_for_by_the_url(supervisor: Supervisor) -> None:
    cache = RedisCache("rediss://h", supervisor, ttl=1, namespace=str, pack=bytes, unpack=bytes)
    assert cache._server._pool.connection_class is redis.asyncio.SSLConnection


GARBAGE = [b"", b"short", bytes(100), b"x" * 40 + b"v"]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_value_that_somebody_else_wrote_is_a_miss(
    cache: Cache, redis_server: RedisServer, space: str, garbage: bytes
) -> None:
    await keep(cache)
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.set(f"taskd:1:{space}:val:task:1:a:", garbage)
    await keep(cache, b"new")


async def test_a_value_that_cannot_be_unpacked_is_a_miss(cache: Cache) -> None:
    cache.put(A, await ticket(cache), b"bad")
    await eventually(lambda: not cache._outbox)
    await keep(cache, b"good")


async def test_keys_of_another_type_are_misses_and_no_outage(
    cache: Cache, redis_server: RedisServer, space: str
) -> None:
    await keep(cache)
    with redis.Redis.from_url(redis_server.url) as admin:
        names = admin.keys(f"taskd:1:{space}:*")
        for name in names:
            admin.delete(name)
            admin.lpush(name, "garbage")
        assert len(names) == 3
        for _ in range(3):
            assert await cache.get(A) == Found(None)
        assert cache.fault is None
        for name in names:
            admin.set(name, "short")
        assert await cache.get(A) == Found(None)
        admin.delete(*names)
    await keep(cache)


@pytest.mark.parametrize("lost", ["all", "gen:a", "val:task:1:a:"])
async def test_whatever_redis_loses_is_a_miss(cache: Cache, redis_server: RedisServer, space: str, lost: str) -> None:
    await keep(cache, b"old")
    late = await ticket(cache, Key("task", "a", "other"))
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.delete(f"taskd:1:{space}:{lost}")
        assert (await cache.get(A)).value is None
        if not lost.startswith("val"):
            # What was loaded before the loss is of a generation that is gone, also when it had no successor yet.
            admin.delete(f"taskd:1:{space}:{lost}")
            cache.put(Key("task", "a", "other"), late, b"late")
            await eventually(lambda: not cache._outbox)
            await ticket(cache, Key("task", "a", "other"))
    await keep(cache, b"new")


async def test_an_entry_is_as_old_as_its_ticket_whenever_it_arrived(
    cache: Cache, redis_server: RedisServer, space: str
) -> None:
    await keep(cache)
    name = f"taskd:1:{space}:val:task:1:a:"
    with redis.Redis.from_url(redis_server.url) as admin:
        # Sixty seconds of its life have gone by; and one that comes from the future, by Redis' clock.
        for seconds in (60, -1000):
            value = admin.get(name)
            at = int.from_bytes(value[32:40], "big") - seconds * 1_000_000
            admin.set(name, value[:32] + at.to_bytes(8, "big") + value[40:])
            assert (await cache.get(A)).value is None
            await keep(cache)


async def test_keys_leave_redis_by_themselves(cache: Cache, redis_server: RedisServer, space: str) -> None:
    await keep(cache)
    with redis.Redis.from_url(redis_server.url) as admin:
        left = {name.decode().split(":")[3]: admin.pttl(name) for name in admin.keys(f"taskd:1:{space}:*")}
        assert 0 < left["val"] <= 60_000
        assert 60_000 < min(left["gen"], left["all"]) <= max(left.values()) <= 120_001
        # Generations outlive their entries, also those that were made long before.
        for name in ("gen:a", "all"):
            admin.pexpire(f"taskd:1:{space}:{name}", 30_000)
        await keep(cache, key=Key("task", "a", "other"))
        for name in ("gen:a", "all"):
            assert 60_000 < admin.pttl(f"taskd:1:{space}:{name}") <= 120_001


async def test_what_has_ended_is_a_miss_without_a_ticket_until_redis_has_confirmed_it(cache: Cache) -> None:
    await keep(cache)
    await keep(cache, key=Key("task", "b"))
    await cache._duty.stop()
    for end in (lambda: cache.invalidate(["a"]), cache.clear):
        end()
        assert await cache.get(A) == Found(None)
    await cache.run_once()
    assert (await cache.get(A)).ticket is not None


async def test_what_ends_while_a_look_is_on_its_way_is_a_miss_without_a_ticket(cache: Cache) -> None:
    await keep(cache)
    await cache._duty.stop()
    look = asyncio.create_task(cache.get(A))
    await asyncio.sleep(0)
    cache.invalidate(["a"])
    assert await look == Found(None)


async def test_an_end_that_is_on_its_way_is_not_taken_for_confirmed(server: RedisServer, make: Make) -> None:
    cache = make(server.url)
    await cache.start()
    await keep(cache)
    server.suspend()
    cache.invalidate(["a"])
    await eventually(lambda: not cache._outbox)
    assert await cache.get(A) == Found(None)
    assert cache.fault is None
    server.resume()
    await keep(cache, b"new")


async def test_a_namespace_is_asked_for_at_each_use_and_begins_empty(make: Make, redis_server: RedisServer) -> None:
    spaces = ["", "first"]
    cache = make(redis_server.url, namespace=lambda: spaces[0])
    await cache.start()
    await eventually(lambda: cache._up)
    assert (await cache.get(A)).ticket is None
    cache.invalidate(["a"])
    spaces[0] = "first-of-two"
    await keep(cache, b"old")
    spaces[0] = "second-of-two"
    assert (await cache.get(A)).value is None
    await keep(cache, b"new")
    # Whoever comes back can't know what was ended meanwhile.
    spaces[0] = "first-of-two"
    await ticket(cache)


async def test_values_larger_than_is_good_for_others_are_not_kept(cache: Cache) -> None:
    cache.put(A, await ticket(cache), bytes(LARGEST + 1))
    assert not cache._outbox
    await keep(cache, bytes(LARGEST))


async def test_few_connections_and_none_after_the_stop(server: RedisServer, make: Make) -> None:
    cache = make(server.url)
    await cache.start()
    await keep(cache)
    with redis.Redis.from_url(server.url) as admin:
        assert len(admin.client_list()) - 1 <= 3
        await cache.stop()
        await cache.stop()
        await eventually(lambda: len(admin.client_list()) == 1)


async def test_what_has_ended_is_told_before_the_stop(make: Make, redis_server: RedisServer, space: str) -> None:
    cache = make(redis_server.url)
    await cache.start()
    await keep(cache)
    cache.invalidate(["a"])
    await cache.stop()
    with redis.Redis.from_url(redis_server.url) as admin:
        assert admin.get(f"taskd:1:{space}:gen:a") is None


async def test_stop_before_start_is_safe_and_entries_are_not_known(make: Make, redis_server: RedisServer) -> None:
    cache = make(redis_server.url)
    await cache.stop()
    assert cache.entries is None
    assert dict(cache.evictions) == {}
    assert cache.fault is None


def test_without_the_client_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['redis'] = None; import taskd.cache.redis"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigError" in result.stderr
    assert "pip install 'taskd[redis]'" in result.stderr
