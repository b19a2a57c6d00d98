"""What handlers get and give: requests and answers, apart from how they travel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from taskd.clock import monotonic
from taskd.domain.codec import read_json
from taskd.domain.model import User
from taskd.errors import Malformed, UnsupportedMedia
from taskd.http1.head import Head
from taskd.runtime.buckets import Allowance
from taskd.service.ports import View

Headers = Sequence[tuple[str, str]]

JSON = "application/json"

NOBODY = User("")
"""Calls, as long as nobody has asked who it is."""


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """One request, read whole. `path`, `query` and what follows are filled in on its way to the handler."""

    head: Head
    body: bytes = b""
    peer: str = ""
    """The address at the other end of the connection."""
    path: str = ""
    query: list[tuple[str, str]] = field(default_factory=list)
    id: str = ""
    route: str = ""
    user: User = NOBODY
    allowance: Allowance | None = None
    """What is left of the caller's limit; None: they have none, or nobody asked who they are."""
    begun: float = field(default_factory=monotonic)
    """When its last byte came, in monotonic seconds."""
    task_id: UUID | None = None
    args: dict[str, Any] = field(default_factory=dict)
    """The query's parameters, checked; only for routes that leave that to the router."""

    def json(self, media_types: Sequence[str] = (JSON,)) -> Any:
        """Return the body's value; see `codec.read_json`.

        Raises:
            UnsupportedMedia: it is announced as something else.
            Malformed: no JSON.
        """
        announced = (self.head.get(b"content-type") or b"").decode("latin-1")
        media_type, _, parameters = announced.partition(";")
        if media_type.strip().lower() not in media_types:
            raise UnsupportedMedia(f"the body must be sent as {' or '.join(media_types)}")
        charset = parameters.strip().lower().removeprefix("charset=").strip('"')
        if charset not in ("", "utf-8"):
            raise UnsupportedMedia("the body must be in UTF-8")
        if self.head.get(b"content-encoding") not in (None, b"identity"):
            raise UnsupportedMedia("the body must be sent without a content coding")
        if not self.body:
            raise Malformed("the body is empty")
        return read_json(self.body)


class Response(NamedTuple):
    """One answer, whole. Length, date and connection fields are added on its way out."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: Headers = ()
    view: View | None = None
    """What it shows, and nothing that is not in that or in the request."""

    def with_headers(self, *headers: tuple[str, str]) -> Response:
        """Return this answer with more header fields."""
        return Response(self.status, self.body, self.media_type, (*self.headers, *headers), self.view)


class Sink(Protocol):
    """Where a stream writes to."""

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while the client is behind. Cancelled when the client is gone."""


class Stream(NamedTuple):
    """An answer without an end: `run` writes until it is cancelled or returns."""

    run: Callable[[Sink], Awaitable[None]]
    media_type: str
    headers: Headers = ()
    status: int = 200

    def with_headers(self, *headers: tuple[str, str]) -> Stream:
        """Return this answer with more header fields."""
        return Stream(self.run, self.media_type, (*self.headers, *headers), self.status)


Answer = Response | Stream
Handler = Callable[[Request], Awaitable[Answer]]
