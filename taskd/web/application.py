"""All calls of the HTTP side, put together: routes inside the wrappers that every request passes through."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from taskd.domain.access import Access
from taskd.domain.codec import dump_json
from taskd.domain.forms import SOCKET
from taskd.http1 import etag
from taskd.metrics.catalog import Catalog
from taskd.service.ports import Feed, Health, Hold, Reads, Tasks
from taskd.web import events
from taskd.web.conditions import IF_NONE_MATCH, if_none_match
from taskd.web.identity import Callers
from taskd.web.message import JSON, Answer, Handler, Request, Response
from taskd.web.metrics import MetricsCalls
from taskd.web.middleware import Passage
from taskd.web.problem import of_status
from taskd.web.router import Reply, Route, Router
from taskd.web.search import SearchCalls
from taskd.web.tasks import TaskCalls

HTML = "text/html; charset=utf-8"
SOCKET_PATH = "/ws"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""Of pages (Content Security Policy Level 3): nothing but files of this server, and in nobody's frame."""


class Site:
    """What is not about tasks: health, the description, the dashboard."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self.describe: Callable[[], bytes] = bytes
        """Makes the description."""

    async def alive(self, request: Request) -> Response:
        """`GET /healthz`, `GET /livez`: the event loop turns, or this would not answer."""
        return Response(200, b'{"status":"ok"}', headers=_FRESH)

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`"""
        parts = self._health.ready()
        ready = all(part.ok for part in parts.values())
        told = {name: {"ok": part.ok, "detail": part.detail} for name, part in parts.items()}
        body = dump_json({"ready": ready, "parts": told}).encode("utf-8", "backslashreplace")
        return Response(200 if ready else 503, body, headers=_FRESH if ready else [*_FRESH, ("Retry-After", "1")])

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`"""
        description = self.describe()
        return _known_or(request, hashlib.sha256(description).hexdigest()[:16], description, JSON)

    async def socket(self, request: Request) -> Answer:
        """`GET /ws`, by a request that asks for no upgrade (RFC 9110 15.5.22)."""
        answer = of_status(426, "this is a WebSocket: ask for an upgrade", request.id)
        return answer.with_headers(("Upgrade", "websocket"))

    def routes(self) -> Sequence[Route]:
        """Return the routes of these calls."""
        alive = {200: Reply("it lives", "Alive")}
        ready = {200: Reply("every part works", "Ready"), 503: Reply("a part does not", "Ready", ("Retry-After",))}
        whole = {200: Reply("OpenAPI 3.1", {"type": "object"}, ("ETag",)), 304: _SAME}
        switch = {101: Reply("a WebSocket"), 426: Reply("it was not asked for", "Problem", ("Upgrade",))}
        return (
            Route("GET", "/healthz", self.alive, "Whether the process lives", alive, Access.OPEN),
            Route("GET", "/livez", self.alive, "Whether the process lives", alive, Access.OPEN),
            Route("GET", "/readyz", self.ready, "Whether it is fit to be sent work", ready, Access.OPEN),
            Route("GET", "/openapi.json", self.openapi, "This description", whole, Access.KNOWN, headers=_IF_NONE),
            Route(
                "GET", SOCKET_PATH, self.socket, "The event log as a WebSocket", switch, Access.TASKS, query=SOCKET,
                own_query=True,
            ),
            *[_page(path, file, media_type) for path, file, media_type in _FILES],
        )


_STATIC = Path(__file__).with_name("static")
_FRESH = [("Cache-Control", "no-store")]
_SAME = Reply("it has not changed", None, ("ETag",))
_IF_NONE = {"If-None-Match": IF_NONE_MATCH}
_FILES = (
    ("/", "index.html", HTML),
    ("/dashboard.js", "dashboard.js", "text/javascript; charset=utf-8"),
    ("/dashboard.css", "dashboard.css", "text/css; charset=utf-8"),
)


def _known_or(request: Request, tag: str, body: bytes, media_type: str) -> Response:
    """Return a file, or 304 if the client knows it (RFC 9110 13.1.2)."""
    headers = [("ETag", etag.quote(tag)), ("Cache-Control", "no-cache")]
    tags = if_none_match(request)
    known = tags is not None and tags.has_weak(tag)
    return Response(304, headers=headers) if known else Response(200, body, media_type, headers)


def _page(path: str, file: str, media_type: str) -> Route:
    body = (_STATIC / file).read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:16]
    policy = ("Content-Security-Policy", _POLICY)

    async def answer(request: Request) -> Response:
        return _known_or(request, tag, body, media_type).with_headers(policy)

    plain = media_type.partition(";")[0]
    return Route(
        "GET",
        path,
        answer,
        "The dashboard",
        {200: Reply("a file of it", {"type": "string"}, ("ETag",)), 304: _SAME},
        Access.OPEN,
        headers=_IF_NONE,
        produces=(plain,),
    )


def routes(
    tasks: Tasks,
    reads: Reads,
    feed: Feed,
    health: Health,
    catalog: Catalog,
    hold: Hold,
    *,
    per_user: int = 8,
    by_word: bool = False,
) -> tuple[Route, ...]:
    """Return all routes of a process that serves everything.

    Args:
        hold: tells streams of the end of their caller's token.
        per_user: streams of one user at once.
        by_word: callers are taken at their word, for the description.
    """
    site = Site(health)
    streams = events.EventStreams(feed, hold, per_user)
    stream = Route(
        "GET", "/events", streams.open, "The event log as Server-Sent Events",
        {200: Reply("a stream of events", "StreamEvent")}, Access.TASKS, query=events.QUERY,
        produces=(events.EVENT_STREAM,),
    )  # fmt: skip
    search = SearchCalls(tasks).routes()
    found = (*TaskCalls(tasks, reads).routes(), *search, stream, *MetricsCalls(catalog).routes(), *site.routes())
    site.describe = cache(lambda: dump_json(_document(found, by_word=by_word)).encode())
    return found


def description() -> dict[str, Any]:
    """Return the OpenAPI document, without a server to ask."""
    nobody: Any = None
    return _document(routes(nobody, nobody, nobody, nobody, nobody, nobody))


def _document(found: Sequence[Route], *, by_word: bool = False) -> dict[str, Any]:
    # Made for who asks for it: a start does not wait for that.
    from taskd.web import openapi

    return openapi.document(found, by_word=by_word)


def bare_routes(health: Health, catalog: Catalog) -> tuple[Route, ...]:
    """Return the routes of a process that only works: its health and its metrics."""
    alive = [route for route in Site(health).routes() if route.path in ("/healthz", "/livez", "/readyz")]
    return (*alive, *MetricsCalls(catalog).routes())


def application(
    routes: Sequence[Route], callers: Callers, origins: Collection[str] = (), catalog: Catalog | None = None
) -> Handler:
    """Return what answers every request, and never raises."""
    return Passage(Router(routes, callers.admit), catalog or Catalog(), origins)
