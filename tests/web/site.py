"""The application over tiny handlers, asked without a socket."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from taskd.domain.access import Access
from taskd.http1.head import parse_head
from taskd.http1.limits import Limits
from taskd.metrics.catalog import Catalog
from taskd.service.auth import Gate
from taskd.web.application import application
from taskd.web.identity import Callers
from taskd.web.message import Answer, Handler, Request, Response
from taskd.web.router import Reply, Route
from tests.gates import trusting
from tests.web.serving import request

OK = {200: Reply("fine", {"type": "object"})}


def made(method: str, target: str, body: bytes | None = None, **fields: str) -> Request:
    """Return a request as a connection hands it on."""
    head, _, rest = request(method, target, body, **fields).partition(b"\r\n\r\n")
    return Request(parse_head(head + b"\r\n\r\n", Limits()), rest)


def route(handler: Handler, method: str = "GET", path: str = "/thing", **more: Any) -> Route:
    """Return a route of a test's own."""
    return Route(method, path, handler, "A test's", OK, more.pop("access", Access.TASKS), **more)


async def fine(request: Request) -> Answer:
    """Answer what the request was found to be."""
    facts = f'{{"user":"{request.user.name}","id":"{request.task_id}","route":"{request.route}"}}'
    return Response(200, facts.encode())


class Site:
    """An application of some routes."""

    def __init__(self, *routes: Route, origins: Collection[str] = (), gate: Gate | None = None) -> None:
        self.catalog = Catalog()
        self.handle = application(routes, Callers(gate or trusting()), origins, self.catalog)

    async def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Response:
        """Return the answer to a request."""
        answer = await self.handle(made(method, target, body, **fields))
        assert isinstance(answer, Response)
        return answer


def field(answer: Response, name: str) -> str | None:
    """Return a header field of an answer; lines of the same name are joined."""
    found: Sequence[str] = [value for key, value in answer.headers if key == name]
    return ", ".join(found) if found else None
