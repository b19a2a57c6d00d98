"""What every cache does, in memory and in a server: one suite for all."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskd.cache.memory import MemoryCache
from taskd.cache.port import Cache, Key, Ticket
from taskd.cache.redis import RedisCache
from taskd.runtime.supervisor import Supervisor
from tests.redis_servers import RedisServer
from tests.waiting import eventually

Make = Callable[[Supervisor, float, str], Cache[bytes]]

KINDS = ["memory", "redis", "valkey"]

_spaces = count(1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(kind: str, request: pytest.FixtureRequest) -> Make:
    """Makes a cache that lives for some seconds, in a namespace where it has one."""
    server: RedisServer | None = None if kind == "memory" else request.getfixturevalue(f"{kind}_server")

    def build(supervisor: Supervisor, ttl: float, space: str) -> Cache[bytes]:
        if server is None:
            return MemoryCache(supervisor, ttl=ttl, entries=100, size=1_000_000, size_of=len)
        # Patient: a busy machine is no outage.
        return RedisCache(
            server.url, supervisor, ttl=ttl, namespace=lambda: space, pack=bytes, unpack=bytes, timeout=10
        )

    return build


@pytest.fixture
async def cache(build: Make, supervisor: Supervisor, space: str) -> AsyncIterator[Cache[bytes]]:
    cache = build(supervisor, 60, space)
    await cache.start()
    yield cache
    await cache.stop()


async def ticket(cache: Cache[bytes], key: Key) -> Ticket:
    """Return a ticket, once there are any: what has ended may have to be confirmed first."""

    async def ask() -> Ticket | None:
        return (await cache.get(key)).ticket

    return await eventually(ask)


async def value(cache: Cache[bytes], key: Key, wanted: bytes) -> None:
    """Wait until a value is there: a put may be under way."""

    async def ask() -> bool:
        return (await cache.get(key)).value == wanted

    await eventually(ask)


async def keep(cache: Cache[bytes], key: Key, kept: bytes = b"v") -> None:
    """Have a value kept, again if an end that another cache was still sending has overtaken it."""

    async def is_kept() -> bool:
        found = await cache.get(key)
        if found.value is None and found.ticket is not None:
            cache.put(key, found.ticket, kept)
        return found.value == kept

    await eventually(is_kept)


async def missing(cache: Cache[bytes], key: Key) -> bool:
    return (await cache.get(key)).value is None


async def test_what_is_put_is_there(cache: Cache[bytes]) -> None:
    key = Key("task", "a")
    assert await missing(cache, key)
    await keep(cache, key, b"\x00\xff any bytes")
    await keep(cache, Key("task", "b"), b"")
    assert cache.fault is None


async def test_keys_are_kept_apart_in_each_of_their_parts(cache: Cache[bytes]) -> None:
    keys = [
        Key("task", "a"), Key("list", "a"), Key("task", "a", "b"), Key("task", "a:b"), Key("task", "a:", "b"),
        Key("task", "b"), Key("task", "", "a"), Key("list", "ann\0new", "ä ☃ \udc80"),
    ]  # fmt: skip
    for number, key in enumerate(keys):
        await keep(cache, key, b"%d" % number)
    for number, key in enumerate(keys):
        assert (await cache.get(key)).value == b"%d" % number


async def test_the_end_of_a_scope_ends_all_of_its_entries_at_once_and_no_others(cache: Cache[bytes]) -> None:
    ended = [Key("task", "a"), Key("list", "a", "1"), Key("list", "a", "2"), Key("list", "b", "1")]
    for key in (*ended, Key("list", "c", "1")):
        await keep(cache, key)
    cache.invalidate(["a", "b"])
    for key in ended:
        assert await missing(cache, key)
    await value(cache, Key("list", "c", "1"), b"v")
    for key in ended:
        await keep(cache, key, b"new")


async def test_clear_ends_everything_at_once(cache: Cache[bytes]) -> None:
    keys = [Key("task", "a"), Key("list", "b", "1")]
    for key in keys:
        await keep(cache, key)
    cache.clear()
    for key in keys:
        assert await missing(cache, key)
        await keep(cache, key, b"new")


@pytest.mark.parametrize("everything", [False, True])
async def test_a_load_that_began_before_an_end_is_not_stored_after_it(cache: Cache[bytes], everything: bool) -> None:
    key = Key("list", "a", "1")
    old = await ticket(cache, key)
    if everything:
        cache.clear()
    else:
        cache.invalidate(["a"])
    cache.put(key, old, b"old")
    assert await missing(cache, key)
    new = await ticket(cache, key)
    cache.put(key, old, b"old")
    # Puts arrive in order.
    await keep(cache, Key("list", "other"))
    assert await missing(cache, key)
    cache.put(key, new, b"new")
    await value(cache, key, b"new")


async def test_entries_leave_when_their_time_is_over(build: Make, supervisor: Supervisor, space: str) -> None:
    cache = build(supervisor, 0.2, space)
    await cache.start()
    key = Key("task", "a")
    for _ in range(2):
        cache.put(key, await ticket(cache, key), b"v")
        await eventually(lambda: missing(cache, key))
    await cache.stop()


async def test_after_the_stop_there_is_no_task_left(build: Make, space: str) -> None:
    cache = build(Supervisor(), 60, space)
    await cache.stop()
    await cache.start()
    await keep(cache, Key("task", "a"))
    await cache.stop()
    await cache.stop()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


KEYS = [Key("task", "a"), Key("list", "a", "x"), Key("task", "b")]

STEP = st.tuples(
    st.sampled_from(["get", "turn", "answer", "put", "write", "told", "clear", "settle"]),
    st.integers(0, 1),
    st.sampled_from(KEYS),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=60))
def test_a_read_after_an_end_never_gives_what_was_loaded_before_it(
    build: Make, kind: str, steps: list[tuple[str, int, Key]]
) -> None:
    async def play() -> None:
        supervisor = Supervisor()
        space = f"race{next(_spaces)}"
        caches = [build(supervisor, 60, space) for _ in range(2)]
        for cache in caches:
            await cache.start()
        race = Race(caches, shared=kind != "memory")
        try:
            for step, number, key in steps:
                await race.do(step, number, key)
            await race.finish()
        finally:
            for cache in caches:
                await cache.stop()
            await supervisor.stop()

    asyncio.run(play())


class Race:
    """Two processes that read through a cache each, and write to one store.

    `told` is, for each process and scope, the state of the store when the process was last told of a change, or,
    where both share a server, when the other one was and the server had confirmed it.
    """

    def __init__(self, caches: list[Cache[bytes]], *, shared: bool) -> None:
        self.caches = caches
        self.shared = shared
        self.store: dict[str, int] = defaultdict(int)
        self.told: list[dict[str, int]] = [defaultdict(int), defaultdict(int)]
        self.asked: list[tuple[int, Key, int, asyncio.Task[tuple[bytes | None, Ticket | None]]]] = []
        self.loaded: list[tuple[int, Key, Ticket, int]] = []

    async def do(self, step: str, number: int, key: Key) -> None:
        if step == "get":
            self.asked.append((number, key, self.told[number][key.scope], asyncio.create_task(self.look(number, key))))
        elif step == "turn":
            await asyncio.sleep(0)
        elif step == "answer" and self.asked:
            await self.answer()
        elif step == "put" and self.loaded:
            process, wanted, right, state = self.loaded.pop(-number)
            self.caches[process].put(wanted, right, b"%d" % state)
        elif step == "write":
            self.store[key.scope] += 1
            self.tell(number, key.scope)
        elif step == "told":
            self.tell(number, key.scope)
        elif step == "clear":
            self.caches[number].clear()
            self.told[number].update(self.store)
        elif step == "settle":
            await self.settle(number, key)

    async def look(self, number: int, key: Key) -> tuple[bytes | None, Ticket | None]:
        found = await self.caches[number].get(key)
        return found.value, found.ticket

    async def answer(self) -> None:
        process, key, least, look = self.asked.pop(0)
        found, right = await look
        if found is not None:
            assert int(found) >= least, f"{key}: {found!r} is older than {least}"
        elif right is not None:
            # Loaded at once: the older a value is, the worse if it is given to somebody.
            self.loaded.append((process, key, right, self.store[key.scope]))

    async def finish(self) -> None:
        """Have all that is under way arrive, and read everything."""
        while self.asked:
            await self.answer()
        for process, key, right, state in self.loaded:
            self.caches[process].put(key, right, b"%d" % state)
        for number, cache in enumerate(self.caches):
            # Puts arrive in order.
            await keep(cache, Key("task", f"last of {number}"))
        for number in (0, 1):
            for key in KEYS:
                await self.settle(number, key)
                await self.do("get", number, key)
                await self.answer()

    def tell(self, number: int, scope: str) -> None:
        self.caches[number].invalidate([scope])
        self.told[number][scope] = self.store[scope]

    async def settle(self, number: int, key: Key) -> None:
        told = self.told[number][key.scope]

        async def confirmed() -> bool:
            found, right = await self.look(number, key)
            return found is not None or right is not None

        await eventually(confirmed)
        if self.shared:
            other = self.told[1 - number]
            other[key.scope] = max(other[key.scope], told)
