"""The cache in Redis when Redis is away: absent, killed, slow, another, not to be written to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from taskd.cache import outbox
from taskd.cache.port import Key, Ticket
from taskd.cache.redis import LOOKS, _Pauses
from taskd.errors import Unavailable
from tests.cache.conftest import FakeClock
from tests.cache.looks import A, Make, keep, ticket
from tests.redis_servers import RedisServer
from tests.waiting import eventually


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().split(";")[0] for record in caplog.records if record.name.startswith("taskd")]


async def test_absent_at_the_start_is_a_miss_and_it_heals_when_it_comes(
    new_redis: Callable[..., RedisServer], make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = new_redis()
    cache = make(server.url)
    await cache.start()
    await eventually(lambda: cache.fault)
    found = await cache.get(A)
    assert (found.value, found.ticket) == (None, None)
    cache.put(A, Ticket(bytes(40), 0), b"v")
    cache.invalidate(["a"])
    cache.clear()
    server.start()
    await keep(cache)
    await eventually(lambda: cache.fault is None)
    assert [line.split(":")[0] for line in told(caplog)] == ["cache", "cache works again"]


async def test_killed_in_mid_run_and_started_anew(
    server: RedisServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache = make(server.url)
    await cache.start()
    await keep(cache)
    server.kill()
    found = await cache.get(A)
    assert (found.value, found.ticket) == (None, None)
    assert cache.fault is not None
    assert cache.fault.startswith("Redis: ")
    # Asked again and again, it says so once.
    for _ in range(10):
        await cache.get(A)
    await eventually(lambda: len(told(caplog)) == 1)
    server.start()
    await keep(cache, b"new")
    await eventually(lambda: cache.fault is None)
    assert [line.split(":")[0] for line in told(caplog)] == ["cache", "cache works again"]


async def test_a_slow_one_is_away_and_nobody_waits_for_it_until_it_answers(server: RedisServer, make: Make) -> None:
    cache = make(server.url, timeout=0.05)
    await cache.start()
    await ticket(cache)
    server.suspend()
    await cache.get(A)
    await eventually(lambda: cache.fault == "Redis: no answer within 50 ms")
    asked = cache._looks.submit
    cache._looks.submit = None  # type: ignore[method-assign, assignment]
    assert (await cache.get(A)).ticket is None
    cache._looks.submit = asked  # type: ignore[method-assign]
    server.resume()
    await ticket(cache)


async def test_ends_of_an_outage_are_told_before_anybody_may_ask_again(server: RedisServer, make: Make) -> None:
    here, there = make(server.url, timeout=0.2), make(server.url)
    await here.start()
    await there.start()
    await ticket(there)
    await keep(here, b"old")
    server.suspend()
    await here.get(A)
    await eventually(lambda: here.fault)
    here.invalidate(["a"])
    server.resume()
    seen: list[bytes | None] = []

    async def back() -> bool:
        found = await here.get(A)
        seen.append(found.value)
        return found.ticket is not None

    await eventually(back)
    assert set(seen) == {None}
    assert (await there.get(A)).value is None


async def test_an_end_whose_arrival_is_not_known_is_told_again(server: RedisServer, make: Make) -> None:
    cache = make(server.url, timeout=0.2)
    await cache.start()
    await keep(cache)
    server.suspend()
    cache.invalidate(["a"])
    await eventually(lambda: cache.fault)
    assert cache._outbox.holds("a")
    assert not cache._outbox.holds("b")
    server.resume()
    await keep(cache, b"new")


@pytest.mark.parametrize("noticed", [True, False])
async def test_one_that_was_started_anew_from_an_older_state_gives_nothing_of_it(
    new_redis: Callable[..., RedisServer], make: Make, noticed: bool
) -> None:
    server = new_redis()
    server.start()
    cache = make(server.url)
    await cache.start()
    await keep(cache, b"old")
    admin = redis.Redis.from_url(server.url)
    saved = {name: admin.dump(name) for name in admin.scan_iter()}
    cache.invalidate(["a"])
    await ticket(cache)
    server.kill()
    if noticed:
        await cache.get(A)
        await eventually(lambda: cache.fault)
    # Enough for the loop to see that the connections are gone, and for the client to make new ones by itself.
    for _ in range(20):
        await asyncio.sleep(0)
    server.start()
    for name, value in saved.items():
        admin.restore(name, 60_000, value, replace=True)
    admin.close()
    seen: list[bytes | None] = []

    async def back() -> bool:
        found = await cache.get(A)
        seen.append(found.value)
        return found.ticket is not None

    await eventually(back)
    assert set(seen) == {None}


async def test_what_a_process_that_died_left_behind_does_not_outlive_its_next_start(
    make: Make, redis_server: RedisServer
) -> None:
    before = make(redis_server.url)
    await before.start()
    await keep(before, b"old")
    after = make(redis_server.url)
    await after.start()
    await ticket(after)
    assert (await before.get(A)).value is None


async def test_a_wrong_password_is_an_outage_and_stays_secret(
    new_redis: Callable[..., RedisServer], make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(tcp="yes", requirepass="right-horse")
    server.start()
    wrong = make(server.url.replace("//", "//:wrong-secret@"))
    await wrong.start()
    await eventually(lambda: wrong.fault)
    assert "invalid" in str(wrong.fault)
    right = make(server.url.replace("//", "//:right-horse@"))
    await right.start()
    await keep(right)
    server.kill()
    await right.get(A)
    await eventually(lambda: right.fault)
    text = f"{caplog.text}{wrong.fault}{right.fault}{wrong!r}{right!r}"
    assert "secret" not in text
    assert "horse" not in text


async def test_flushed_it_heals(server: RedisServer, make: Make) -> None:
    cache = make(server.url)
    await cache.start()
    await keep(cache)
    with redis.Redis.from_url(server.url) as admin:
        admin.flushall()
    await keep(cache, b"new")


async def test_of_those_who_wait_for_one_that_is_slow_all_are_answered_at_once(server: RedisServer, make: Make) -> None:
    cache = make(server.url, timeout=0.2)
    await cache.start()
    await keep(cache)
    asked = 0
    ask = cache._server.exchange

    async def counted(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        nonlocal asked
        asked += any(command[0] == "MGET" for command in commands)
        return await ask(commands)

    cache._server.exchange = counted
    server.suspend()
    found = await asyncio.gather(*(cache.get(Key("task", str(number))) for number in range(3 * LOOKS)))
    assert {look.ticket for look in found} == {None}
    assert asked == 1
    server.resume()


async def test_an_outbox_that_overflows_in_an_outage_ends_everything(server: RedisServer, make: Make) -> None:
    cache = make(server.url, timeout=0.2)
    await cache.start()
    await keep(cache)
    server.suspend()
    await cache.get(A)
    cache.invalidate(str(number) for number in range(outbox.MOST_ENDED + 1))
    server.resume()
    await ticket(cache)


async def test_a_server_that_may_not_be_written_to_is_away(server: RedisServer, make: Make) -> None:
    cache = make(server.url)
    await cache.start()
    await keep(cache)
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory", "1")
        cache.invalidate(["a"])
        await cache.get(Key("task", "new"))
        await eventually(lambda: cache.fault and "maxmemory" in cache.fault)
        await cache._duty.stop()
        # That it can be asked is not enough for it to be back.
        for _ in range(3):
            with pytest.raises(Unavailable, match="maxmemory"):
                await cache.run_once()
        await cache.start()
        admin.config_set("maxmemory", "0")
    await keep(cache)


def test_pauses_begin_anew_only_after_a_steady_time() -> None:
    clock = FakeClock()
    pauses = _Pauses(clock)

    def next_after(seconds: float) -> float:
        pauses.reset()
        clock.now += seconds
        pauses.reset()
        return pauses.next()

    assert [next_after(1) for _ in range(6)][-1] >= 1.0
    assert next_after(30) <= 0.1
    assert next_after(1) >= 0.1
