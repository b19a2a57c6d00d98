"""What every request passes through on its way to its call, and the answer on its way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from urllib.parse import urlencode

from taskd import log
from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.errors import TaskdError
from taskd.http1.accept import best
from taskd.http1.limits import BadRequest
from taskd.http1.target import split
from taskd.metrics.catalog import OTHER, UNMATCHED, Catalog
from taskd.metrics.registry import Counter, Histogram
from taskd.web.message import Answer, Handler, Request, Response
from taskd.web.problem import of_bug, of_error, of_status
from taskd.web.router import METHODS

logger = logging.getLogger("taskd.http")

GZIP_ABOVE = 1024
"""Bytes of a body above which it is compressed when asked for."""

GZIP_IN_THREAD = 64 * 1024
"""Bytes above which compressing would hold up the event loop for more than a millisecond or so."""

PACKED_ENTRIES, PACKED_BYTES, PACKED_FOR = 1000, 4 * 1024 * 1024, 60.0
"""Bodies that are kept compressed, their bytes with those of what they were made from, and for how many seconds."""

EXPIRED_AT_ONCE = 16
"""Of those, how many go at the most each time that one is made."""


class Passage:
    """The way of every request to the call that it is for, and of the answer back. Never raises.

    All of it is one coroutine: a wrapper of its own for each of these few steps costs a request more than the steps do.

    Args:
        inner: finds the call and makes it.
        catalog: counts requests.
        origins: whose pages may call; none: the answers say nothing of it.
        clock: monotonic seconds.
    """

    def __init__(
        self, inner: Handler, catalog: Catalog, origins: Collection[str] = (), clock: Clock = monotonic
    ) -> None:
        self._inner = inner
        self._measure = Measure(catalog, clock)
        self._pack = Packer().pack
        self._origins = frozenset(origins)

    async def __call__(self, request: Request) -> Answer:
        """Answer a request, which gets an id: it is in its answer and in each line that is logged meanwhile."""
        values = request.head.values
        request.id = log.request_id_of(values.get(b"x-request-id"))
        token, trace = log.request_id.set(request.id), log.traceparent.set(_traceparent(values.get(b"traceparent")))
        try:
            answer = preflight(request, self._origins) or await self._guarded(request)
            if answer.status == 304:
                # RFC 9110 15.4.5: what the 200 has, if it is large enough.
                answer = answer.with_headers(_VARY_CODING)
            elif isinstance(answer, Response) and len(answer.body) > GZIP_ABOVE:
                answer = await self._pack(request, answer)
            fields = [] if request.allowance is None else [*request.allowance.fields]
            if self._origins:
                fields += shared_fields(request, self._origins)
            answer = answer.with_headers(*fields, _NO_GUESSES, ("X-Request-Id", request.id))
            self._measure.note(request, answer)
            return answer
        finally:
            log.request_id.reset(token)
            log.traceparent.reset(trace)

    async def _guarded(self, request: Request) -> Answer:
        try:
            request.path, request.query = split(request.head.target)
            return await self._inner(request)
        except Exception as error:
            return failure(request, error)


_NO_GUESSES = ("X-Content-Type-Options", "nosniff")
"""Keeps browsers from guessing what an answer is (Fetch, "X-Content-Type-Options header")."""

_VARY_CODING = ("Vary", "Accept-Encoding")


def _traceparent(given: bytes | None) -> str | None:
    return None if given is None else log.traceparent_of(given.decode("latin-1"))


def known_method(method: str) -> str:
    """Return a request's method as a label: whatever no route has is `other`."""
    return method if method in METHODS else OTHER


class Measure:
    """Counts, times and logs each request once its answer is made; a stream, once it begins.

    What becomes of the answer on its way out is the client's time, not the server's.

    Args:
        catalog: has the families.
        clock: monotonic seconds.
    """

    def __init__(self, catalog: Catalog, clock: Clock = monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        # The routes, methods and statuses are few, and finding a series by its labels is dearer than finding it here.
        self._bound: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def note(self, request: Request, answer: Answer) -> None:
        """Take note of an answer that was just made."""
        seconds = self._clock() - request.begun
        # Bounded: a client may send any method.
        key = (known_method(request.head.method), request.route, answer.status)
        series = self._bound.get(key)
        if series is None:
            series = self._bound[key] = self._series_of(*key)
        series[0].inc()
        series[1].observe(seconds)
        if logger.isEnabledFor(logging.INFO):
            facts = _facts(request, answer, seconds)
            logger.info("%s %s %d", request.head.method, request.path, answer.status, extra=facts)

    def _series_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        route = route or UNMATCHED
        # A histogram is large, and there need not be one for each method that a path does not take.
        timed = OTHER if status == 405 else method
        return (
            self._catalog.http_requests.labels(method, route, str(status)),
            self._catalog.http_seconds.labels(timed, route),
        )


def _facts(request: Request, answer: Answer, seconds: float) -> dict[str, object]:
    facts: dict[str, object] = {
        "method": request.head.method,
        "status": answer.status,
        "route": request.route or None,
        "user": request.user.name or None,
        "milliseconds": round(seconds * 1000, 2),
        "bytes": len(answer.body) if isinstance(answer, Response) else None,
    }
    facts["traceparent"] = log.traceparent.get()
    return log.fields(**{name: fact for name, fact in facts.items() if fact is not None})


def failure(request: Request, error: Exception) -> Response:
    """Return the problem that an error is; to be called while it is handled.

    A caller's fault leaves no traceback; a bug does, and shows nothing of the inside.
    """
    if isinstance(error, BadRequest):
        return of_status(error.status, error.message, request.id)
    answer = of_error(error, request.id) if isinstance(error, TaskdError) else of_bug(request.id)
    if answer.status == 500:
        logger.exception("%s %s failed", request.head.method, request.path)
    return answer


class Packer:
    """Compresses what is worth it, for who asks for it (RFC 9110 12.5.3).

    A read that carries an entity tag is likely to be asked for again as it is, so its compressed form is kept for a
    while.
    """

    def __init__(self) -> None:
        self._kept: TTLCache[bytes, bytes] = TTLCache(ttl=PACKED_FOR, entries=PACKED_ENTRIES, size=PACKED_BYTES)

    async def pack(self, request: Request, answer: Response) -> Response:
        """Return an answer of more than `GZIP_ABOVE` bytes as it is to be sent."""
        asked = request.head.get(b"accept-encoding")
        if asked is None or best(asked, ["gzip", "identity"]) != "gzip":
            return answer.with_headers(_VARY_CODING)
        packed = await self._packed(request, answer)
        whole = Response(answer.status, packed, answer.media_type, answer.headers, answer.view)
        return whole.with_headers(_VARY_CODING, ("Content-Encoding", "gzip"))

    async def _packed(self, request: Request, answer: Response) -> bytes:
        self._kept.expire(EXPIRED_AT_ONCE)
        read = answer.status == 200 and request.head.method in ("GET", "HEAD")
        again = read and any(name == "ETag" for name, _ in answer.headers)
        # Found by its bytes: a cached answer is the same object each time, whose hash is known.
        body = self._kept.get(answer.body) if again else None
        if body is None:
            # Imported only where it is used: not by a start.
            import gzip

            if len(answer.body) > GZIP_IN_THREAD:
                body = await asyncio.to_thread(gzip.compress, answer.body, 5, mtime=0)
            else:
                body = gzip.compress(answer.body, 5, mtime=0)
            if again:
                self._kept.put(answer.body, body, size=len(answer.body) + len(body))
        return body


def _origin(request: Request, origins: Collection[str]) -> str | None:
    """Return the origin of the page that calls, if it may."""
    given = request.head.get(b"origin")
    origin = None if given is None else given.decode("latin-1")
    return origin if origin is not None and ("*" in origins or origin in origins) else None


def preflight(request: Request, origins: Collection[str]) -> Response | None:
    """Return the answer to a page that asks whether it may call (Fetch, "CORS protocol"), or None."""
    if not origins or request.head.method != "OPTIONS" or not request.head.get(b"access-control-request-method"):
        return None
    return None if _origin(request, origins) is None else Response(204, headers=_PREFLIGHT)


def shared_fields(request: Request, origins: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields that let pages of these origins read an answer (Fetch, "CORS protocol")."""
    origin = _origin(request, origins)
    # Also for who is not let in: a cache must not give a page what was answered to another.
    vary = ("Vary", "Origin")
    if origin is None:
        return [vary]
    asked = request.head.method == "OPTIONS" and request.head.get(b"access-control-request-method")
    return [("Access-Control-Allow-Origin", origin), vary, *([] if asked else [_EXPOSED])]


_EXPOSED_FIELDS = (
    "ETag, Link, Location, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id"
)
_EXPOSED = ("Access-Control-Expose-Headers", _EXPOSED_FIELDS)
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id,"
        " X-Taskd-User",
    ),
    ("Access-Control-Max-Age", "600"),
]


def link_next(path: str, query: Sequence[tuple[str, str]], cursor: str) -> tuple[str, str]:
    """Return the `Link` to a list's next page (RFC 8288)."""
    pairs = [pair for pair in query if pair[0] != "cursor"]
    return ("Link", f'<{path}?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"')
