"""What every request passes through, from the outside in: each a plain wrapper of a handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
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
from taskd.web.message import Answer, Handler, Request, Response, Stream
from taskd.web.problem import of_bug, of_error, of_status
from taskd.web.router import METHODS

logger = logging.getLogger("taskd.http")

Middleware = Callable[[Handler], Handler]

GZIP_ABOVE = 1024
"""Bytes of a body above which it is compressed when asked for."""

GZIP_IN_THREAD = 64 * 1024
"""Bytes above which compressing would hold up the event loop for more than a millisecond or so."""

PACKED_ENTRIES, PACKED_BYTES, PACKED_FOR = 1000, 4 * 1024 * 1024, 60.0
"""Bodies that are kept compressed, their bytes with those of what they were made from, and for how many seconds."""

EXPIRED_AT_ONCE = 16
"""Of those, how many go at the most each time that one is made."""


def compose(handler: Handler, wrappers: Sequence[Middleware]) -> Handler:
    """Return `handler` inside `wrappers`, the first outermost."""
    for wrapper in reversed(wrappers):
        handler = wrapper(handler)
    return handler


def identified(inner: Handler) -> Handler:
    """Give each request an id, in its answer and in each line that is logged meanwhile, and keep its trace context."""

    async def handle(request: Request) -> Answer:
        request.id = log.request_id_of(request.head.get(b"x-request-id"))
        token, trace = log.request_id.set(request.id), log.traceparent.set(_traceparent(request))
        try:
            return (await inner(request)).with_headers(("X-Request-Id", request.id))
        finally:
            log.request_id.reset(token)
            log.traceparent.reset(trace)

    return handle


def _traceparent(request: Request) -> str | None:
    given = request.head.get(b"traceparent")
    return log.traceparent_of(None if given is None else given.decode("latin-1"))


def known_method(method: str) -> str:
    """Return a request's method as a label: whatever no route has is `other`."""
    return method if method in METHODS else OTHER


def measured(catalog: Catalog, clock: Clock = monotonic) -> Middleware:
    """Count, time and log each request once its answer is made; a stream, once it begins.

    What becomes of the answer on its way out is the client's time, not the server's.

    Args:
        catalog: has the families.
        clock: monotonic seconds.
    """
    # The routes, methods and statuses are few, and finding a series by its labels is dearer than finding it here.
    bound: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def series_of(key: tuple[str, str, int]) -> tuple[Counter, Histogram]:
        method, route, status = key[0], key[1] or UNMATCHED, str(key[2])
        # A histogram is large, and there need not be one for each method that a path does not take.
        timed = OTHER if key[2] == 405 else method
        return catalog.http_requests.labels(method, route, status), catalog.http_seconds.labels(timed, route)

    def wrap(inner: Handler) -> Handler:
        async def handle(request: Request) -> Answer:
            answer = await inner(request)
            seconds = clock() - request.begun
            # Bounded: a client may send any method.
            key = (known_method(request.head.method), request.route, answer.status)
            series = bound.get(key)
            if series is None:
                series = bound[key] = series_of(key)
            series[0].inc()
            series[1].observe(seconds)
            if logger.isEnabledFor(logging.INFO):
                facts = _facts(request, answer, seconds)
                logger.info("%s %s %d", request.head.method, request.path, answer.status, extra=facts)
            return answer

        return handle

    return wrap


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


def guarded(inner: Handler) -> Handler:
    """Answer errors as problems. A caller's fault leaves no traceback; a bug does, and shows nothing of the inside."""

    async def handle(request: Request) -> Answer:
        try:
            return await inner(request)
        except TaskdError as error:
            answer = of_error(error, request.id)
            if answer.status == 500:
                logger.exception("%s %s failed", request.head.method, request.path)
            return answer
        except BadRequest as error:
            return of_status(error.status, error.message, request.id)
        except Exception:
            logger.exception("%s %s failed", request.head.method, request.path)
            return of_bug(request.id)

    return handle


def located(inner: Handler) -> Handler:
    """Read the request's target: path and query."""

    async def handle(request: Request) -> Answer:
        request.path, request.query = split(request.head.target)
        return await inner(request)

    return handle


def limited(inner: Handler) -> Handler:
    """Tell callers who have a limit what is left of it."""

    async def handle(request: Request) -> Answer:
        answer = await inner(request)
        return answer if request.allowance is None else answer.with_headers(*request.allowance.fields)

    return handle


def compressed(inner: Handler) -> Handler:
    """Compress what is worth it, for who asks for it (RFC 9110 12.5.3).

    A read that carries an entity tag is likely to be asked for again as it is, so its compressed form is kept for a
    while.
    """
    kept: TTLCache[bytes, bytes] = TTLCache(ttl=PACKED_FOR, entries=PACKED_ENTRIES, size=PACKED_BYTES)

    async def pack(request: Request, answer: Response) -> bytes:
        kept.expire(EXPIRED_AT_ONCE)
        read = answer.status == 200 and request.head.method in ("GET", "HEAD")
        again = read and any(name == "ETag" for name, _ in answer.headers)
        # Found by its bytes: a cached answer is the same object each time, whose hash is known.
        body = kept.get(answer.body) if again else None
        if body is None:
            # Imported only where it is used: not by a start.
            import gzip

            if len(answer.body) > GZIP_IN_THREAD:
                body = await asyncio.to_thread(gzip.compress, answer.body, 5, mtime=0)
            else:
                body = gzip.compress(answer.body, 5, mtime=0)
            if again:
                kept.put(answer.body, body, size=len(answer.body) + len(body))
        return body

    async def handle(request: Request) -> Answer:
        answer = await inner(request)
        vary = ("Vary", "Accept-Encoding")
        if answer.status == 304:
            # RFC 9110 15.4.5: what the 200 has, if it is large enough.
            return answer.with_headers(vary)
        if isinstance(answer, Stream) or len(answer.body) <= GZIP_ABOVE:
            return answer
        asked = request.head.get(b"accept-encoding")
        if asked is None or best(asked, ["gzip", "identity"]) != "gzip":
            return answer.with_headers(vary)
        packed = Response(answer.status, await pack(request, answer), answer.media_type, answer.headers, answer.view)
        return packed.with_headers(vary, ("Content-Encoding", "gzip"))

    return handle


def shared_with(origins: Collection[str]) -> Middleware:
    """Let pages of these origins call (the Fetch standard, section 3.2, "CORS protocol")."""

    def wrap(inner: Handler) -> Handler:
        async def handle(request: Request) -> Answer:
            given = request.head.get(b"origin")
            origin = None if given is None else given.decode("latin-1")
            # Also for who is not let in: a cache must not give a page what was answered to another.
            vary = ("Vary", "Origin")
            if origin is None or ("*" not in origins and origin not in origins):
                return (await inner(request)).with_headers(vary)
            allowed = [("Access-Control-Allow-Origin", origin), vary]
            if request.head.method == "OPTIONS" and request.head.get(b"access-control-request-method"):
                return Response(204, headers=[*allowed, *_PREFLIGHT])
            return (await inner(request)).with_headers(*allowed, _EXPOSED)

        return handle

    return wrap if origins else lambda inner: inner


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
