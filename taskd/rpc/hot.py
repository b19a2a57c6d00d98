"""Answers that are given again at once: to a call that says the same, as long as they would be made anew the same.

As `web/hot.py` does for HTTP. Whoever reads one task or list again and again says the same each time, in the message
and in the metadata, and all that an answer depends on is there; but for whether the caller's token is still believed,
and whether the cache still has the very view that is shown, which are looked at (see `service/again.py`). Only where
that is so are answers kept: reads of views, without a limit of calls, while no line is logged for each call. A call
that has a request id, or a trace, is one of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.service.again import GivenAnswers, Standing
from taskd.service.ports import View

logger = logging.getLogger("taskd.grpc")

LARGEST = 64 * 1024
"""Bytes of an answer that is kept."""

_OWN = frozenset(("x-request-id", "traceparent"))

Said = tuple[str, bytes, tuple[tuple[str, str | bytes], ...]]
"""A call: its method, its message, its metadata."""


class Shown(NamedTuple):
    """An answer that shows a view, encoded."""

    body: bytes
    view: View


class Hot(NamedTuple):
    """An answer: what it shows, to whom, and its message."""

    view: View
    user: User
    body: bytes


class HotAnswers:
    """Finds and keeps them.

    Args:
        views: says whether a view is what a read would give now.
        believes: says whether a user would be let in now without a look.
        clock: monotonic seconds.
    """

    def __init__(self, views: Standing, believes: Callable[[User], bool], clock: Clock = monotonic) -> None:
        self._given: GivenAnswers[Said, Hot] = GivenAnswers(views, believes, logger, clock)
        self._believes = believes
        self._clock = clock

    def find(self, said: Said) -> bytes | None:
        """Return the answer to a call, if it is known and may be given."""
        hot = self._given.find(said, self._clock())
        return None if hot is None else hot.body

    def keep(self, said: Said, user: User, shown: Shown) -> None:
        """Keep an answer that is about to be given, if it may be given again."""
        if shown.view.key is None or len(shown.body) > LARGEST or not self._believes(user):
            return
        _, request, metadata = said
        if any(name in _OWN for name, _ in metadata):
            return
        size = len(shown.body) + len(request) + sum(len(name) + len(value) for name, value in metadata)
        self._given.keep(said, Hot(shown.view, user, shown.body), size)
