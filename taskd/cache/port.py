"""What a cache is to whoever reads through it.

An entry belongs to a scope, and a scope has a generation: whatever was stored under an older one is not there any
more. So a write invalidates everything that it may have changed by ending a few generations, however many entries there
are, and a load that began before a write can't be stored after it, because the ticket that it holds is of a generation
that has ended.

    found = await cache.get(key)          hit: found.value
    value = await load()                  a write may come in between
    cache.put(key, found.ticket, value)   stored only if the scope's generation is still the ticket's

The time of an entry runs from `get`, before its load began: nothing is ever older than its time to live.

All but `get` return at once, and hold at once for whoever asks through this same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

V = TypeVar("V")


class Key(NamedTuple):
    """What is kept: in which cache (`task`, `list`: it is a label of metrics), what ends it, and its name in there."""

    cache: str
    scope: str
    name: str = ""


class Ticket(NamedTuple):
    """The right to store one load: the generations that it belongs to, and when it was asked for."""

    generation: bytes
    at: float


@dataclass(slots=True)
class Found(Generic[V]):
    """The answer to a look. `value` None: a miss; then `ticket` is for `put`, or None when nothing can be stored."""

    value: V | None
    ticket: Ticket | None = None


class Cache(Protocol[V]):
    """Keeps values for a while. Nothing here raises because a cache is away: then every look is a miss."""

    evictions: Mapping[tuple[str, str], int]
    """How many entries left so far, by cache and reason: `expired`, `invalidated`, `entries`, `bytes`."""

    @property
    def entries(self) -> Mapping[str, int] | None:
        """How many entries there are, by cache; None when that is not known."""

    @property
    def fault(self) -> str | None:
        """Why the cache can't be used now, or None."""

    async def start(self) -> None:
        """Begin. A cache that is away does not keep anybody from starting."""

    async def stop(self) -> None:
        """End. Safe twice, and before `start`."""

    async def get(self, key: Key) -> Found[V]:
        """Return what is kept under the key, if its scope's generation has not ended since."""

    def put(self, key: Key, ticket: Ticket, value: V) -> None:
        """Keep a value that was loaded after the `get` that gave the ticket, unless the scope has ended meanwhile."""

    def invalidate(self, scopes: Iterable[str]) -> None:
        """End the generations of these scopes."""

    def clear(self) -> None:
        """End all generations."""
