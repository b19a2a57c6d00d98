"""Answers that are given again at once: to a call that says the same, as long as they would be made anew the same.

As `web/hot.py` does for HTTP. Whoever reads one task or list again and again says the same each time, in the message
and in the metadata, and all that an answer depends on is there; but for whether the caller's token is still believed,
and whether the cache still has the very view that is shown, which are looked at each time. Only where that is so are
answers kept: reads of views, without a limit of calls, while no line is logged for each call. A call that has a request
id, or a trace, is one of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.service.ports import View

logger = logging.getLogger("taskd.grpc")

KEPT, KEPT_BYTES, KEPT_FOR = 1000, 8 * 1024 * 1024, 60.0
"""Answers that are kept, their bytes with those of what was said, and for how many seconds."""

LARGEST = 64 * 1024
"""Bytes of an answer that is kept."""

_OWN = frozenset(("x-request-id", "traceparent"))

Said = tuple[str, bytes, tuple[tuple[str, str | bytes], ...]]
"""A call: its method, its message, its metadata."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that shows a view, encoded."""

    body: bytes
    view: View


@dataclass(frozen=True, slots=True)
class Hot:
    """An answer, and to whom it was given."""

    shown: Shown
    user: User


class HotAnswers:
    """Finds and keeps them.

    Args:
        still: says whether a view is what a read would give now, and counts that read.
        believes: says whether a user would be let in now without a look.
        clock: monotonic seconds.
    """

    def __init__(
        self, still: Callable[[View], bool], believes: Callable[[User], bool], clock: Clock = monotonic
    ) -> None:
        self._still = still
        self._believes = believes
        self._kept: TTLCache[Said, Hot] = TTLCache(ttl=KEPT_FOR, entries=KEPT, size=KEPT_BYTES, clock=clock)

    def find(self, said: Said) -> bytes | None:
        """Return the answer to a call, if it is known and may be given."""
        hot = self._kept.get(said)
        if hot is None or logger.isEnabledFor(logging.INFO):
            return None
        if not self._believes(hot.user) or not self._still(hot.shown.view):
            self._kept.pop(said)
            return None
        return hot.shown.body

    def keep(self, said: Said, user: User, shown: Shown) -> None:
        """Keep an answer that is about to be given, if it may be given again."""
        if shown.view.key is None or len(shown.body) > LARGEST or not self._believes(user):
            return
        _, request, metadata = said
        if any(name in _OWN for name, _ in metadata):
            return
        size = len(shown.body) + len(request) + sum(len(name) + len(value) for name, value in metadata)
        self._kept.expire(16)
        self._kept.put(said, Hot(shown, user), size=size)
