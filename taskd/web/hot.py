"""Answers that are given again at once: to the very bytes of a request, as long as they would be made anew the same.

Whoever reads one task or list again and again over one connection sends the same bytes each time, and most of the work
on them comes to the same: parsing, routing, who calls, what is in the cache, compressing, the head of the answer. What
may have changed meanwhile is looked at (see `service/again.py`): whether the caller's token is still believed, and
whether the cache still has the very view that is shown. All else that an answer depends on is in the request's bytes.
Only where that is so are answers kept: reads of views, without a limit of calls, while no line is logged for each
request.

What differs from one answer to the next is made anew: `Date` and `X-Request-Id`; and each is counted and timed as any
other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from taskd import log
from taskd.clock import Clock, monotonic
from taskd.domain.model import User
from taskd.http1.encode import http_date, response_head
from taskd.metrics.catalog import Catalog
from taskd.metrics.registry import Counter, Histogram
from taskd.service.again import KEPT, GivenAnswers, Standing
from taskd.service.ports import View
from taskd.web.answers import PIECE
from taskd.web.message import Request, Response

logger = logging.getLogger("taskd.http")

_ANEW = frozenset(("X-Request-Id",))
_OWN = frozenset((b"x-request-id", b"traceparent"))
"""Fields that make a request one of a kind."""


class Hot(NamedTuple):
    """One answer: what it shows, to whom, and what is the same each time."""

    view: View
    user: User
    rest: bytes
    """From behind the request's id to the end of the body."""
    requests: Counter
    seconds: Histogram


class HotAnswers:
    """Finds and keeps them.

    Args:
        views: says whether a view is what a read would give now.
        believes: says whether a user would be let in now without a look.
        catalog: where requests are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        views: Standing,
        believes: Callable[[User], bool],
        catalog: Catalog,
        clock: Clock = monotonic,
    ) -> None:
        self._given: GivenAnswers[bytes, Hot] = GivenAnswers(views, believes, logger, clock)
        self._catalog = catalog
        self._clock = clock
        self._seen: dict[bytes, None] = {}
        """Requests that were made once: only who asks again is likely to ask once more."""
        self._start = ""
        """Up to the answer's id."""
        self._start_until = 0.0
        """When its date is over."""

    def find(self, data: bytes, now: float) -> tuple[bytes, bytes] | None:
        """Return the answer to a request whose bytes these are, in two pieces, if it is known and may be given.

        Args:
            now: by the clock, when they came.
        """
        hot = self._given.find(data, now)
        if hot is None:
            return None
        hot.requests.inc()
        if now >= self._start_until:
            self._date(now)
        answer = f"{self._start}{log.new_request_id()}\r\n".encode("ascii"), hot.rest
        hot.seconds.observe(self._clock() - now)
        return answer

    def keep(self, request: Request, answer: Response) -> None:
        """Keep an answer that was just given over a connection that goes on, if it may be given again."""
        head, view = request.head, answer.view
        if view is None or view.key is None or answer.status != 200 or head.method != "GET" or head.version != (1, 1):
            return
        if request.allowance is not None or len(answer.body) > PIECE or not _OWN.isdisjoint(head.values):
            return
        if head.content_length or head.chunked:
            # Behind these bytes comes a body, which would be taken for the next request.
            return
        if head.raw not in self._seen:
            self._seen[head.raw] = None
            if len(self._seen) > KEPT:
                del self._seen[next(iter(self._seen))]
            return
        headers = [pair for pair in answer.headers if pair[0] not in _ANEW]
        headers += [("Content-Type", answer.media_type), ("Content-Length", str(len(answer.body)))]
        # Without the status line and the date that it begins with.
        fields = response_head(200, headers, now=0).split(b"\r\n", 2)[2]
        rest = fields + answer.body
        series = self._catalog.http_requests.labels("GET", request.route, "200")
        timed = self._catalog.http_seconds.labels("GET", request.route)
        self._given.keep(head.raw, Hot(view, request.user, rest, series, timed), len(head.raw) + len(rest))

    def _date(self, now: float) -> None:
        """Make the beginning of answers, for the rest of this second."""
        date = time.time()
        second = int(date)
        self._start = f"HTTP/1.1 200 OK\r\nDate: {http_date(second)}\r\nX-Request-Id: "
        self._start_until = now + second + 1 - date
