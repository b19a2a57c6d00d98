"""A bounded map whose entries end by time. Pure and synchronous: whoever owns it decides when `expire` is called.

A dict in the order of use holds the entries, so that taking the one unused for longest is one step; a heap holds their
deadlines. An entry that is replaced or taken out leaves its deadline behind in the heap, to be thrown away when it
comes up; so that entries with far deadlines that are put again and again do not fill the memory with them, the heap is
built anew when it is more than twice as long as the dict, which costs each step a constant on average.

Considered and refused: a list of deadlines in the order of puts, without a heap (right only while every entry has the
same time to live counted from its put), and a full sweep now and then (it stalls the loop for as long as the map is
large).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from taskd.clock import Clock, monotonic

K = TypeVar("K")
V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    value: V
    deadline: float
    size: int
    number: int
    """Tells this entry's deadline in the heap from those of others that were under the same key."""


class TTLCache(Generic[K, V]):
    """Keeps up to `entries` values of `size` bytes together, each until its deadline.

    Args:
        ttl: seconds that an entry is kept when its put names no deadline.
        entries: how many at the most; beyond it the one unused for longest leaves.
        size: bytes of all together, as `put` is told them; beyond it those unused for longest leave.
        clock: gives the time.
        on_leave: called with the key and the reason of each entry that leaves: `expired`, `entries`, `bytes`, or what
            `pop` was told. A value that takes another's place under its key is not a leaving, and neither is `clear`.
    """

    def __init__(
        self,
        *,
        ttl: float,
        entries: int,
        size: int,
        clock: Clock = monotonic,
        on_leave: Callable[[K, str], None] | None = None,
    ) -> None:
        if not ttl > 0 or entries < 1 or size < 0:
            raise ValueError("wants ttl > 0, entries >= 1 and size >= 0")
        self._ttl = ttl
        self._most = entries
        self._size_most = size
        self._clock = clock
        self._on_leave = on_leave
        self._numbers = count()
        self._size = 0
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._deadlines: list[tuple[float, int, K]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether an entry is there, due or not. No use of it."""
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        """Give the keys, the one unused for longest first; those that are due and have not left yet too."""
        return iter(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return self._size

    def get(self, key: K) -> V | None:
        """Return the value under the key, or None. Counts as a use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.deadline <= self._clock():
            self._leave(key, "expired")
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, value: V, *, size: int = 0, deadline: float | None = None) -> bool:
        """Keep a value, in place of what was under its key, and return whether it is kept.

        One that is larger than all may be together, or past its deadline, is not kept; what was under its key
        leaves even so, because it is no longer the value of that key.

        Args:
            size: bytes of the value.
            deadline: by the clock; None: now and the time to live.
        """
        now = self._clock()
        if deadline is None:
            deadline = now + self._ttl
        if deadline <= now or size > self._size_most:
            self.pop(key, "bytes" if size > self._size_most else "expired")
            return False
        old = self._entries.pop(key, None)
        if old is not None:
            self._size -= old.size
        number = next(self._numbers)
        self._entries[key] = _Entry(value, deadline, size, number)
        self._size += size
        heapq.heappush(self._deadlines, (deadline, number, key))
        if len(self._entries) > self._most or self._size > self._size_most:
            # What is due makes room before what is not; nothing is, while the first deadline of all is to come.
            if self._deadlines[0][0] <= now:
                self.expire()
            self._shrink()
        self._tidy()
        return True

    def pop(self, key: K, reason: str = "invalidated") -> V | None:
        """Take an entry out, for a reason, and return its value if it had one that was not due."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        due = entry.deadline <= self._clock()
        self._leave(key, "expired" if due else reason)
        return None if due else entry.value

    def clear(self) -> None:
        """Take all out at once, without a word to `on_leave`."""
        self._entries.clear()
        self._deadlines.clear()
        self._size = 0

    def expire(self, most: int | None = None) -> float | None:
        """Take out what is due and return the next deadline, or None when nothing is left.

        Args:
            most: how many to take out at the most; if more are due, the answer is a deadline that has passed.
        """
        now = self._clock()
        gone = 0
        while self._deadlines:
            deadline, number, key = self._deadlines[0]
            entry = self._entries.get(key)
            if entry is None or entry.number != number:
                heapq.heappop(self._deadlines)
            elif deadline > now or gone == most:
                return deadline
            else:
                heapq.heappop(self._deadlines)
                self._leave(key, "expired")
                gone += 1
        return None

    def _shrink(self) -> None:
        while len(self._entries) > self._most:
            self._leave(next(iter(self._entries)), "entries")
        while self._size > self._size_most:
            self._leave(next(iter(self._entries)), "bytes")

    def _leave(self, key: K, reason: str) -> None:
        self._size -= self._entries.pop(key).size
        self._tidy()
        if self._on_leave is not None:
            self._on_leave(key, reason)

    def _tidy(self) -> None:
        if len(self._deadlines) > 2 * len(self._entries):
            self._deadlines = [(entry.deadline, entry.number, key) for key, entry in self._entries.items()]
            heapq.heapify(self._deadlines)
