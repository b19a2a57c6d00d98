"""The cache in memory: generations, bounds, expiry by itself. What it shares with Redis is in `test_contract`."""

from __future__ import annotations

import asyncio

import pytest

from taskd.cache.memory import OVERHEAD, SMALL, SWEEP, MemoryCache
from taskd.cache.port import Key
from taskd.runtime.supervisor import Supervisor
from tests.cache.conftest import FakeClock
from tests.waiting import eventually

TTL = 30.0


def make(supervisor: Supervisor, clock: FakeClock, *, entries: int = 100, size: int = 1_000_000) -> MemoryCache[bytes]:
    return MemoryCache(supervisor, ttl=TTL, entries=entries, size=size, size_of=len, clock=clock)


@pytest.fixture
def cache(supervisor: Supervisor, clock: FakeClock) -> MemoryCache[bytes]:
    return make(supervisor, clock)


async def keep(cache: MemoryCache[bytes], key: Key, value: bytes = b"v") -> None:
    found = await cache.get(key)
    assert found.ticket is not None
    cache.put(key, found.ticket, value)


async def has(cache: MemoryCache[bytes], key: Key) -> bool:
    return (await cache.get(key)).value is not None


async def test_time_runs_from_the_get_and_not_from_the_put(cache: MemoryCache[bytes], clock: FakeClock) -> None:
    key = Key("task", "a")
    found = await cache.get(key)
    clock.now += TTL - 1
    assert found.ticket is not None
    cache.put(key, found.ticket, b"v")
    assert await has(cache, key)
    clock.now += 1
    assert not await has(cache, key)


async def test_it_says_whether_a_look_would_find_a_very_value(cache: MemoryCache[bytes], clock: FakeClock) -> None:
    key, value = Key("list", "ann", "page"), bytes(bytearray(b"value"))
    assert not cache.keeps(key, value)
    await keep(cache, key, value)
    assert cache.keeps(key, value)
    assert not cache.keeps(key, bytes(bytearray(value)))
    cache.invalidate(("ann",))
    assert not cache.keeps(key, value)
    await keep(cache, key, value)
    assert cache.keeps(key, value)
    clock.now += TTL
    assert not cache.keeps(key, value)


async def test_what_is_asked_for_by_its_value_outlives_what_is_not(supervisor: Supervisor, clock: FakeClock) -> None:
    cache = make(supervisor, clock, entries=2)
    first, second, third = (Key("task", name) for name in "abc")
    value = b"v"
    await keep(cache, first, value)
    await keep(cache, second, value)
    assert cache.keeps(first, value)
    await keep(cache, third, value)
    assert [await has(cache, key) for key in (first, second, third)] == [True, False, True]


async def test_what_was_loaded_for_longer_than_entries_live_is_not_kept(
    cache: MemoryCache[bytes], clock: FakeClock
) -> None:
    found = await cache.get(Key("task", "a"))
    clock.now += TTL
    assert found.ticket is not None
    cache.put(Key("task", "a"), found.ticket, b"v")
    assert dict(cache.entries) == {"task": 0}


async def test_entries_and_evictions_are_counted_by_cache(cache: MemoryCache[bytes], clock: FakeClock) -> None:
    await keep(cache, Key("task", "a"))
    await keep(cache, Key("list", "ann", "1"))
    second = await cache.get(Key("list", "ann", "2"))
    await keep(cache, Key("list", "ann", "2"))
    assert second.ticket is not None
    cache.put(Key("list", "ann", "2"), second.ticket, b"in its place")
    assert dict(cache.entries) == {"task": 1, "list": 2}
    cache.clear()
    assert dict(cache.entries) == {"task": 0, "list": 0}
    await keep(cache, Key("task", "a"))
    clock.now += TTL
    await cache.run_once()
    assert dict(cache.entries) == {"task": 0, "list": 0}
    assert dict(cache.evictions) == {("task", "invalidated"): 1, ("list", "invalidated"): 2, ("task", "expired"): 1}


async def test_the_whole_of_a_scope_leaves_with_it_and_its_parts_when_they_are_looked_at(
    cache: MemoryCache[bytes],
) -> None:
    await keep(cache, Key("task", "a"))
    await keep(cache, Key("other", "a"))
    await keep(cache, Key("list", "a", "page"))
    cache.invalidate(["a", "unknown"])
    assert dict(cache.entries) == {"task": 0, "other": 0, "list": 1}
    assert not await has(cache, Key("list", "a", "page"))
    assert dict(cache.entries) == {"task": 0, "other": 0, "list": 0}
    assert set(cache.evictions) == {("task", "invalidated"), ("other", "invalidated"), ("list", "invalidated")}


async def test_to_end_a_scope_looks_at_none_of_its_entries(supervisor: Supervisor, clock: FakeClock) -> None:
    cache = make(supervisor, clock, entries=2000, size=10_000_000)
    for number in range(1000):
        await keep(cache, Key("list", "ann", str(number)))
    cache.invalidate(["ann"])
    assert dict(cache.entries) == {"list": 1000}
    assert not any([await has(cache, Key("list", "ann", str(number))) for number in range(1000)])


async def test_entries_and_bytes_are_bounded_over_all_caches(supervisor: Supervisor, clock: FakeClock) -> None:
    cache = make(supervisor, clock, entries=3, size=4 * OVERHEAD)
    await keep(cache, Key("list", "ann", "1"))
    for name in "abc":
        await keep(cache, Key("task", name))
    assert dict(cache.entries) == {"list": 0, "task": 3}
    await keep(cache, Key("task", "d"), bytes(OVERHEAD + 1))
    assert cache.size <= 4 * OVERHEAD
    assert dict(cache.evictions) == {("list", "entries"): 1, ("task", "entries"): 1, ("task", "bytes"): 1}
    await keep(cache, Key("task", "e"), bytes(4 * OVERHEAD))
    assert dict(cache.entries) == {"list": 0, "task": 2}


async def test_scopes_are_bounded_and_a_lost_one_is_a_miss_and_never_a_revival(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    cache = make(supervisor, clock, entries=2)
    key = Key("list", "asked", "1")
    before = await cache.get(key)
    assert before.ticket is not None
    for number in range(20):
        await cache.get(Key("task", f"nothing there {number}"))
    assert len(cache._asked) == 2
    # A ticket of the lost generation is worth nothing, although the scope has a new one.
    await cache.get(key)
    cache.put(key, before.ticket, b"old")
    assert not await has(cache, key)
    await keep(cache, key)
    assert await has(cache, key)
    for number in range(20):
        await keep(cache, Key("task", f"kept {number}"))
    assert len(cache._scopes) == 4
    assert not await has(cache, key)


async def test_who_asks_for_what_is_not_there_pushes_out_nothing_that_is(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    cache = make(supervisor, clock, entries=10)
    keys = [Key("task", str(number)) for number in range(10)]
    for key in keys:
        await keep(cache, key)
    for number in range(1000):
        await cache.get(Key("task", f"nothing there {number}"))
    assert [await has(cache, key) for key in keys] == [True] * 10
    assert dict(cache.evictions) == {}


async def test_one_large_value_does_not_push_out_what_many_ask_for(supervisor: Supervisor, clock: FakeClock) -> None:
    size = 32 * SMALL * 2
    cache = make(supervisor, clock, size=size)
    await keep(cache, Key("task", "a"))
    await keep(cache, Key("list", "ann", "1"), bytes(size // 32 - 2 * OVERHEAD))
    assert await has(cache, Key("list", "ann", "1"))
    await keep(cache, Key("list", "ann", "2"), bytes(size // 32))
    assert dict(cache.evictions) == {}
    assert not await has(cache, Key("list", "ann", "2"))
    assert await has(cache, Key("list", "ann", "1"))
    assert await has(cache, Key("task", "a"))


async def test_a_scope_in_use_outlives_those_that_are_not(supervisor: Supervisor, clock: FakeClock) -> None:
    cache = make(supervisor, clock, entries=2)
    key = Key("task", "kept")
    await keep(cache, key)
    for number in range(20):
        await cache.get(Key("task", f"nothing there {number}"))
        assert await has(cache, key)


async def test_it_sleeps_until_the_next_deadline_and_without_entries_for_good(
    cache: MemoryCache[bytes], clock: FakeClock
) -> None:
    assert await cache.run_once() is None
    await keep(cache, Key("task", "a"))
    assert await cache.run_once() == TTL
    clock.now += TTL - 0.25
    # No more than one look a second.
    assert await cache.run_once() == 1.0
    clock.now += 1
    assert await cache.run_once() is None
    assert dict(cache.entries) == {"task": 0}


async def test_many_that_are_due_leave_in_turns(supervisor: Supervisor, clock: FakeClock) -> None:
    cache = make(supervisor, clock, entries=2 * SWEEP, size=10**9)
    for number in range(SWEEP + 1):
        await keep(cache, Key("list", "ann", str(number)))
    clock.now += TTL
    assert await cache.run_once() == 0.0
    assert dict(cache.entries) == {"list": 1}
    assert await cache.run_once() is None


async def test_entries_leave_on_their_own(supervisor: Supervisor) -> None:
    cache: MemoryCache[bytes] = MemoryCache(supervisor, ttl=0.01, entries=10, size=10_000, size_of=len)
    await cache.start()
    # Empty, it rests until something is put.
    await eventually(lambda: cache._resting)
    await keep(cache, Key("list", "ann", "1"))
    await eventually(lambda: dict(cache.evictions) == {("list", "expired"): 1})
    await eventually(lambda: cache._resting)
    await keep(cache, Key("list", "ann", "1"))
    await eventually(lambda: dict(cache.evictions) == {("list", "expired"): 2})
    await cache.stop()


async def test_it_is_never_away(cache: MemoryCache[bytes]) -> None:
    await cache.stop()
    await cache.start()
    assert cache.fault is None
    await cache.stop()
    await cache.stop()
    assert len(asyncio.all_tasks()) == 1
