"""Answers that may be given again at once, whatever they are answers to: the rule, for every transport.

An answer that shows a view depends on three things besides what was asked: whether its caller would still be let in,
whether the cache still has that very view, and whether a line is to be logged for each. They are looked at each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.service.ports import View

KEPT, KEPT_BYTES, KEPT_FOR = 1000, 8 * 1024 * 1024, 60.0
"""Answers that are kept, their bytes with those of what was asked, and for how many seconds."""


class Given(Protocol):
    """An answer that was given: what it shows, and to whom."""

    @property
    def view(self) -> View:
        """What it shows, and nothing that is not in that or in what was asked."""

    @property
    def user(self) -> User:
        """Who was let in for it."""


K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound=Given)


class GivenAnswers(Generic[K, G]):
    """Finds and keeps them, by exactly what was asked.

    Args:
        still: says whether a view is what a read would give now, and counts that read.
        believes: says whether a user would be let in now without a look.
        logger: has a line for each, where it is enabled for `INFO`; then nothing is given again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        still: Callable[[View], bool],
        believes: Callable[[User], bool],
        logger: logging.Logger,
        clock: Clock = monotonic,
    ) -> None:
        self._still = still
        self._believes = believes
        self._logger = logger
        self._kept: TTLCache[K, G] = TTLCache(ttl=KEPT_FOR, entries=KEPT, size=KEPT_BYTES, clock=clock)

    def find(self, asked: K) -> G | None:
        """Return what was given, if it is known and may be given again."""
        given = self._kept.get(asked)
        if given is None or self._logger.isEnabledFor(logging.INFO):
            return None
        if not self._believes(given.user) or not self._still(given.view):
            self._kept.pop(asked)
            return None
        return given

    def keep(self, asked: K, given: G, size: int) -> None:
        """Keep what was given; `size` is in bytes, with those of what was asked."""
        self._kept.expire(16)
        self._kept.put(asked, given, size=size)
