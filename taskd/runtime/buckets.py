"""Token buckets: how often somebody may do something. Pure and synchronous.

Each is kept as one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371), so
one that is full need not be kept at all.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from taskd.clock import Clock, monotonic

K = TypeVar("K", bound=Hashable)

MOST = 10_000
"""Buckets that are kept; beyond it the one unused for longest counts as full."""


class Allowance(NamedTuple):
    """What a bucket holds after something was taken from it, or was not.

    Args:
        limit: what it holds at the most.
        remaining: what may be taken at once.
        reset: seconds until it is full.
        retry_after: seconds until one may be taken; 0: one was.
    """

    limit: int
    remaining: int
    reset: float
    retry_after: float = 0.0

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """What HTTP tells of it (draft-ietf-httpapi-ratelimit-headers, before its version 8)."""
        return (
            ("RateLimit-Limit", str(self.limit)),
            ("RateLimit-Remaining", str(self.remaining)),
            ("RateLimit-Reset", str(math.ceil(self.reset))),
        )


class Buckets(Generic[K]):
    """A bucket for each key, full at first.

    Args:
        rate: what flows in, per second.
        burst: what a bucket holds; None: what flows in within a second, 1 at least.
        most: see `MOST`.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, burst: int | None = None, *, most: int = MOST, clock: Clock = monotonic) -> None:
        self._each = 1 / rate
        self._limit = max(1, math.ceil(rate)) if burst is None else burst
        self._depth = self._limit * self._each
        self._most = most
        self._clock = clock
        self._full_at: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: K) -> Allowance:
        """Take one, if there is one."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now))
        wait = full_at + self._each - self._depth - now
        # What a float loses must not cost a whole call.
        if wait > 1e-9:
            return Allowance(self._limit, 0, full_at - now, wait)
        full_at += self._each
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        self._forget(now)
        left = (self._depth - (full_at - now)) / self._each
        return Allowance(self._limit, max(0, math.floor(left + 1e-9)), full_at - now)

    def look(self, key: K) -> Allowance:
        """Return what may be taken, and take nothing."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now))
        left = max(0, math.floor((self._depth - (full_at - now)) / self._each + 1e-9))
        wait = 0.0 if left else full_at + self._each - self._depth - now
        return Allowance(self._limit, left, full_at - now, wait)

    def _forget(self, now: float) -> None:
        """Let go of those at the old end that are full, or too many."""
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._most:
                break
            del self._full_at[key]
