"""Answers that may be given again at once, whatever they are answers to: the rule, for every transport.

An answer that shows a view depends on three things besides what was asked: whether its caller would still be let in,
whether the cache still has that very view, and whether a line is to be logged for each. What was found right on a look
is not looked at again for `SURE_FOR`, unless any view has changed since: that is told, and ends all of it at once. So a
change is seen by the next read; the end of a belief, of a view's time to live, or of silence in the log, `SURE_FOR`
later at the most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.metrics.registry import Counter
from taskd.service.ports import View

KEPT, KEPT_BYTES, KEPT_FOR = 1000, 8 * 1024 * 1024, 60.0
"""Answers that are kept, their bytes with those of what was asked, and for how many seconds."""

SURE_FOR = 0.05
"""Seconds for which an answer that was looked at is not looked at again. The look costs half of what giving it does."""


class Standing(Protocol):
    """Knows which views still stand."""

    def still(self, view: View) -> Counter | None:
        """Return what counts the reads of a view, if it is what a read would give now; else None."""

    def on_change(self, doubt: Callable[[], None]) -> None:
        """Have `doubt` called whenever a view may stand no more, before anybody is told of what changed."""


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
        views: says whether a view is what a read would give now.
        believes: says whether a user would be let in now without a look.
        logger: has a line for each, where it is enabled for `INFO`; then nothing is given again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        views: Standing,
        believes: Callable[[User], bool],
        logger: logging.Logger,
        clock: Clock = monotonic,
    ) -> None:
        self._still = views.still
        self._believes = believes
        self._logger = logger
        self._kept: TTLCache[K, G] = TTLCache(ttl=KEPT_FOR, entries=KEPT, size=KEPT_BYTES, clock=clock)
        self._sure: dict[K, tuple[G, Counter]] = {}
        """Those of `_kept` that were looked at since the last doubt, and what counts the reads of their views."""
        self._sure_until = 0.0
        views.on_change(self._sure.clear)

    def find(self, asked: K, now: float) -> G | None:
        """Return what was given, if it is known and may be given again; that counts as a read of its view.

        Args:
            now: by the clock.
        """
        if now >= self._sure_until:
            self._sure.clear()
            self._sure_until = now + SURE_FOR
        sure = self._sure.get(asked) or self._look_at(asked)
        if sure is None:
            return None
        given, reads = sure
        reads.inc()
        return given

    def keep(self, asked: K, given: G, size: int) -> None:
        """Keep what was given; `size` is in bytes, with those of what was asked."""
        # What another's place is taken for, or expires, is not to be held any more.
        self._sure.clear()
        self._kept.expire(16)
        self._kept.put(asked, given, size=size)

    def _look_at(self, asked: K) -> tuple[G, Counter] | None:
        given = self._kept.get(asked)
        if given is None or self._logger.isEnabledFor(logging.INFO):
            return None
        reads = self._still(given.view) if self._believes(given.user) else None
        if reads is None:
            self._kept.pop(asked)
            return None
        sure = self._sure[asked] = given, reads
        return sure
