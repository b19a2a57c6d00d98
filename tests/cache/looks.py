"""Asking a cache in Redis until it answers: what was put or ended may be under way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from taskd.cache.port import Key, Ticket
from taskd.cache.redis import RedisCache
from tests.waiting import eventually

A = Key("task", "a")

Cache = RedisCache[bytes]
Make = Callable[..., Cache]


def unpack(data: bytes) -> bytes:
    """Return the value; those that begin so are none."""
    if data.startswith(b"bad"):
        raise ValueError("bad")
    return data


async def ticket(cache: Cache, key: Key = A) -> Ticket:
    """Return a ticket, once there are any."""

    async def ask() -> Ticket | None:
        return (await cache.get(key)).ticket

    return await eventually(ask)


def holds(cache: Cache, value: bytes, key: Key = A) -> Callable[[], Awaitable[bool]]:
    """Return what asks whether a value is there."""

    async def ask() -> bool:
        return (await cache.get(key)).value == value

    return ask


async def keep(cache: Cache, value: bytes = b"v", key: Key = A) -> None:
    """Have a value kept, and wait until it is there."""
    cache.put(key, await ticket(cache, key), value)
    await eventually(holds(cache, value, key))
