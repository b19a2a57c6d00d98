"""The cache in this process's own memory.

One map holds the entries of all caches, so that they share one bound; each entry knows the generation of its scope that
it was stored under. To end a scope is to forget its generation: its entries are of none then, and leave when they
are looked at, when they are due, or when others need their place. Only the entry that is the whole of its scope (the
one without a name) leaves at once, because it is found without a search.

Generations are numbers that never come twice. The scopes are bounded too, the one unused for longest is forgotten
first, and that ends it like an invalidation: whoever asks for its entries misses, and loads them. Those that were only
asked for, and hold nothing yet, are bounded apart: who asks for what is not there pushes out nothing that is.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Generic, TypeVar

from taskd.cache.port import Found, Key, Ticket
from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor

V = TypeVar("V")

OVERHEAD = 700
"""Bytes that an entry takes beside its value and the letters of its key: for its places in dict and heap, its scope.

By tracemalloc on CPython 3.11, 10 000 entries, each the whole of a scope of its own: 690.
"""

SHARE, SMALL = 32, 64 * 1024
"""No value may take more than this part of all bytes, if it takes more than so many: one that is large would push out
what many others ask for."""

SWEEP = 1000
"""Entries that expire in one turn of the event loop, about a millisecond's worth."""

REST = 1.0
"""Seconds between two sweeps. No reader sees what is due: this is about memory only."""


class _Scope:
    """A living generation, and the entries that are the whole of their scope: one of each cache at the most."""

    __slots__ = ("generation", "whole")

    def __init__(self, generation: bytes) -> None:
        self.generation = generation
        self.whole: tuple[Key, ...] = ()


class MemoryCache(Generic[V]):
    """Keeps values in this process; implements `port.Cache`. Never away.

    Args:
        supervisor: owns the sweep.
        ttl: seconds that an entry lives, from the `get` before its load.
        entries: how many at the most, of all caches together.
        size: bytes at the most, of all caches together, what an entry takes beside its value included.
        size_of: returns the bytes of a value.
        clock: gives the time.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        ttl: float,
        entries: int,
        size: int,
        size_of: Callable[[V], int],
        clock: Clock = monotonic,
    ) -> None:
        self._evictions: Counter[tuple[str, str]] = Counter()
        self.evictions: Mapping[tuple[str, str], int] = self._evictions
        self._ttl = ttl
        self._size_of = size_of
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._kept: TTLCache[Key, tuple[bytes, V]] = TTLCache(
            ttl=ttl, entries=entries, size=size, clock=clock, on_leave=self._left
        )
        self._largest = max(size // SHARE, SMALL)
        self._most = entries
        # Those that have, or had, an entry; and those that were only asked for.
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()
        self._asked: OrderedDict[str, _Scope] = OrderedDict()
        self._numbers = count(1)
        self._resting = False
        self._sweep = Periodic("cache", self.run_once, supervisor, Backoff(0.1, 2.0))

    @property
    def entries(self) -> Mapping[str, int]:
        """How many entries there are, by cache."""
        return self._counts

    @property
    def size(self) -> int:
        """Bytes of all entries, what each takes beside its value included."""
        return self._kept.size

    @property
    def fault(self) -> str | None:
        """None: memory is never away."""
        return None

    async def start(self) -> None:
        """Begin to sweep."""
        self._sweep.start()

    async def stop(self) -> None:
        """Sweep no more. Safe twice, and before `start`."""
        await self._sweep.stop()

    async def run_once(self) -> float | None:
        """Take out what is due; return the seconds until more may be, or None while there is nothing."""
        deadline = self._kept.expire(SWEEP)
        self._resting = deadline is None
        if deadline is None:
            return None
        left = deadline - self._clock()
        return max(left, REST) if left > 0 else 0.0

    async def get(self, key: Key) -> Found[V]:
        """Return what is kept under the key, if its scope's generation has not ended since."""
        return self.look(key)

    def look(self, key: Key) -> Found[V]:
        """Return the same, without waiting for anything."""
        kept = self._kept.get(key)
        scope = self._scopes.get(key.scope)
        if scope is not None:
            self._scopes.move_to_end(key.scope)
        if kept is not None:
            if scope is not None and kept[0] == scope.generation:
                return Found(kept[1])
            self._kept.pop(key)
        return Found(None, Ticket((scope or self._ask(key.scope)).generation, self._clock()))

    def keeps(self, key: Key, value: V) -> bool:
        """Return whether this very value is what a look would find. If so, that is a use of it."""
        kept = self._kept.get(key)
        scope = self._scopes.get(key.scope)
        if kept is None or scope is None or kept[1] is not value or kept[0] != scope.generation:
            return False
        self._scopes.move_to_end(key.scope)
        return True

    def put(self, key: Key, ticket: Ticket, value: V) -> None:
        """Keep a value that was loaded after the `get` that gave the ticket, unless the scope has ended meanwhile."""
        scope = self._scopes.get(key.scope) or self._asked.get(key.scope)
        if scope is None or scope.generation != ticket.generation:
            return
        size = self._size_of(value) + OVERHEAD + len(key.scope) + len(key.name)
        if size > self._largest:
            self._kept.pop(key, "bytes")
            return
        known = key in self._kept
        # Counted before the put, which may tell at once that the entry leaves.
        if not known:
            self._counts[key.cache] += 1
        if not self._kept.put(key, (scope.generation, value), size=size, deadline=ticket.at + self._ttl):
            if not known:
                self._counts[key.cache] -= 1
            return
        if not key.name and key not in scope.whole:
            scope.whole += (key,)
        self._hold(key.scope)
        if self._resting:
            self._resting = False
            self._sweep.wake()

    def invalidate(self, scopes: Iterable[str]) -> None:
        """End the generations of these scopes; costs the same however many entries they have."""
        for name in scopes:
            self._asked.pop(name, None)
            scope = self._scopes.pop(name, None)
            if scope is not None:
                for key in scope.whole:
                    self._kept.pop(key)

    def clear(self) -> None:
        """End all generations, and let all entries go."""
        self._scopes.clear()
        self._asked.clear()
        for cache, number in self._counts.items():
            if number:
                self._evictions[cache, "invalidated"] += number
                self._counts[cache] = 0
        self._kept.clear()

    def _ask(self, name: str) -> _Scope:
        """Return the scope of a load, which holds nothing yet."""
        scope = self._asked.get(name)
        if scope is None:
            scope = self._asked[name] = _Scope(next(self._numbers).to_bytes(8, "big"))
            if len(self._asked) > self._most:
                self._asked.popitem(last=False)
        else:
            self._asked.move_to_end(name)
        return scope

    def _hold(self, name: str) -> None:
        """Count a scope among those that have an entry."""
        asked = self._asked.pop(name, None)
        if asked is not None:
            self._scopes[name] = asked
            # Twice as many as there are entries: some are of entries that have left.
            if len(self._scopes) > 2 * self._most:
                self._scopes.popitem(last=False)

    def _left(self, key: Key, reason: str) -> None:
        self._counts[key.cache] -= 1
        self._evictions[key.cache, reason] += 1
