"""Routes: which handler answers a path and a method, and what is said when none does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from taskd.domain.access import Access
from taskd.domain.fields import Bad, Id
from taskd.domain.forms import Entry, Form
from taskd.errors import Fault, Invalid, NotAcceptable, NotFound, TaskdError
from taskd.http1.accept import best
from taskd.web.message import JSON, Answer, Handler, Request, Response
from taskd.web.problem import of_status

NOTHING = Form({})
METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")
"""Those that some path takes; routes of `GET` answer `HEAD` too, and the router itself `OPTIONS`."""

_ID = Id()


class Reply(NamedTuple):
    """What a call may answer, for OpenAPI: a schema by name or in place, None for an empty body."""

    meaning: str
    schema: str | Mapping[str, Any] | None = None
    headers: Sequence[str] = ()


class Route(NamedTuple):
    """One call: how it is reached, what it takes, what it answers.

    `path` has literal segments and at most one `{id}`. `query` is checked by the router, unless `own_query` says that
    the handler does it, and so is `Accept` against the media types that it `produces`, unless `own_accept` says so.
    `body` names the schema of what it takes.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    replies: Mapping[int, Reply]
    access: Access
    query: Form = NOTHING
    own_query: bool = False
    headers: Mapping[str, Entry] | None = None
    body: str | None = None
    body_types: Sequence[str] = (JSON,)
    errors: Sequence[type[TaskdError]] = ()
    produces: tuple[str, ...] = (JSON,)
    own_accept: bool = False


Admit = Callable[[Request, Access], Awaitable[None]]
"""Finds out who calls, and refuses who may not, by raising a `TaskdError`."""


class Router:
    """Finds routes. Literal segments are preferred to `{id}`.

    Args:
        routes: all there are.
        admit: asked before anything else is looked at, with the rule of the call.
    """

    def __init__(self, routes: Sequence[Route], admit: Admit) -> None:
        self.routes = tuple(routes)
        self._admit = admit
        self._literal: dict[str, dict[str, Route]] = {}
        self._with_id: dict[tuple[str, str], dict[str, Route]] = {}
        for route in self.routes:
            before, found, after = route.path.partition("{id}")
            methods = self._with_id.setdefault((before, after), {}) if found else self._literal.setdefault(before, {})
            if route.method not in METHODS:
                raise ValueError(f"{route.method} {route.path} has a method that nobody expects")
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} is routed twice")
            methods[route.method] = route

    def find(self, path: str) -> tuple[Mapping[str, Route], str | None]:
        """Return the routes of a path by method (none: there is no such path), and the text in place of `{id}`."""
        methods = self._literal.get(path)
        if methods is not None:
            return methods, None
        for (before, after), found in self._with_id.items():
            text = path[len(before) : len(path) - len(after)]
            if path.startswith(before) and path.endswith(after) and text and "/" not in text:
                return found, text
        return {}, None

    async def __call__(self, request: Request) -> Answer:
        """Answer a request by its route.

        Raises:
            Unauthenticated, Forbidden, RateLimited: the caller may not make this call.
            NotFound, NotAcceptable, Invalid: and whatever the handler raises.
        """
        methods, text = self.find(request.path)
        method = "GET" if request.head.method == "HEAD" else request.head.method
        route = methods.get(method)
        if methods:
            request.route = next(iter(methods.values())).path
        if route is None:
            # What there is, is told to who is known.
            await self._admit(request, Access.KNOWN)
            return _other_method(request, methods)
        await self._admit(request, route.access)
        accept = request.head.values.get(b"accept")
        if accept is not None and not route.own_accept and best(accept, route.produces) is None:
            raise NotAcceptable(f"this call answers with {' or '.join(route.produces)}")
        faults: list[Fault] = []
        if text is not None:
            found = _ID.read(text)
            if isinstance(found, Bad):
                faults.append(Fault("id", found.message))
            else:
                request.task_id = found
        if not route.own_query and (request.query or route.query is not NOTHING):
            request.args = route.query.read(request.query, faults)
        if route.body is None and request.body and request.body.strip() not in (b"", b"{}"):
            faults.append(Fault("body", "this call takes none"))
        if faults:
            raise Invalid(faults)
        if route.body is not None and request.head.content_length is None and not request.head.chunked:
            return of_status(411, "the body's length must be announced", request.id)
        return await route.handler(request)


def _other_method(request: Request, methods: Mapping[str, Route]) -> Response:
    if request.path == "*":
        # RFC 9110 9.3.7: asks about the server as a whole.
        return Response(204, headers=[("Allow", ", ".join(METHODS))])
    if not methods:
        raise NotFound("there is nothing at this path")
    allowed = sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])})
    allow = ("Allow", ", ".join(allowed))
    if request.head.method == "OPTIONS":
        return Response(204, headers=[allow])
    return of_status(405, f"this path takes {allow[1]}", request.id).with_headers(allow)
