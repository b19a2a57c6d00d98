"""The opening handshake (RFC 6455 4.2): who comes, as which client, from where in the log, and from which page.

A refusal is an HTTP answer like any other of this server, problem+json (RFC 9457), and not a socket that opens only to
close. Browsers show scripts neither, but people and other clients read it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from logging import WARNING, getLogger
from typing import NamedTuple

from websockets.exceptions import InvalidHeader
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from taskd import errors
from taskd.domain.codec import dump_json
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.forms import OWNER, SOCKET, Entry, Form
from taskd.domain.model import User
from taskd.errors import Fault, Forbidden, Invalid, Malformed, TaskdError
from taskd.http1.encode import response_head
from taskd.http1.head import Head
from taskd.http1.limits import BadRequest
from taskd.http1.target import split
from taskd.service.auth import TooManyCalls
from taskd.ws.protocol import SocketProtocol

SUBPROTOCOL = Subprotocol("taskd.v1")
"""The one that is picked if it is offered. `bearer.<token>` beside it is for whoever identifies the user."""

MAX_MESSAGE = 64 * 1024
"""Bytes of one message of a client; the longest filter has 1000 ids of 39 bytes."""

Query = Sequence[tuple[str, str]]
Admit = Callable[[Head, Query, str], Awaitable[User]]
"""Says who sent a head with this query from this address; raises a `TaskdError` if they may have no socket."""

QUERY = Form(
    {**SOCKET.entries, "user": Entry(OWNER, "the user, where the server trusts whoever reaches it", None)}
)

STATUS: Mapping[type[TaskdError], int] = {
    errors.TaskdError: 500,
    errors.Rejected: 400,
    errors.Malformed: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotAcceptable: 406,
    errors.Conflict: 409,
    errors.StaleVersion: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Invalid: 422,
    errors.KeyReused: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.ConfigError: 500,
    errors.StartError: 500,
}

# `websockets` logs each connection, and at DEBUG every field of the head, tokens included.
_quiet = getLogger("taskd.ws.protocol")
_quiet.setLevel(WARNING)

_ORIGIN = re.compile(r"https?://([^/?#@]+)", re.IGNORECASE)


class Opening(NamedTuple):
    """What a good request asks for; `after` is the text of a cursor, or None."""

    user: User
    client: str
    after: str | None


class Refusal(Exception):
    """The handshake itself is wrong, by RFC 6455: answer `status` with these fields."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


async def read_opening(head: Head, peer: str, admit: Admit, origins: Collection[str]) -> Opening:
    """Check a request before it is upgraded.

    Args:
        head: the request; its path has been found to be that of the socket.
        peer: the address at the other end.
        admit: says who the user is.
        origins: pages that may connect, besides the server's own; `*` for all.

    Raises:
        TaskdError: as `admit` does; `Forbidden` for another page's origin; `Invalid` with every fault of the query;
            `Malformed` when the query can't be read, or there is a body.
    """
    if head.content_length or head.chunked:
        raise Malformed("a request for an upgrade must not have a body")
    try:
        _, pairs = split(head.target)
    except BadRequest as error:
        raise Malformed(error.message) from None
    faults: list[Fault] = []
    user: User | None = None
    try:
        user = await admit(head, pairs, peer)
    except Invalid as error:
        faults += error.faults
    _check_origin(head, origins)
    good = QUERY.read(pairs, faults)
    if "after" in good:
        try:
            decode_log_cursor(good["after"])
        except Invalid as error:
            faults += error.faults
    if faults or user is None:
        raise Invalid(list(dict.fromkeys(faults)))
    return Opening(user, good.get("client", "default"), good.get("after"))


def _check_origin(head: Head, origins: Collection[str]) -> None:
    """RFC 6455 10.2: a browser says which page connects, and sends the server's cookies for any.

    The scheme of the server's own origin is not compared: behind a proxy that ends TLS it is not known here.
    """
    given = head.get(b"origin")
    if given is None or "*" in origins:
        return
    origin = given.decode("latin-1").lower()
    if origin in {allowed.lower() for allowed in origins}:
        return
    host = (head.get(b"host") or b"").decode("latin-1").lower()
    own = _ORIGIN.fullmatch(origin)
    if own is None or own[1] != host:
        raise Forbidden("pages of this origin may not connect")


def _select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def accept(raw_head: bytes, request: str, *, max_size: int = MAX_MESSAGE) -> SocketProtocol:
    """Return a protocol whose 101 answer waits to be sent (RFC 6455 4.2.2).

    The head is replayed byte for byte: a protocol that is given a request made by hand answers 101, and then reads
    nothing.

    Args:
        raw_head: the exact bytes of the head, with its empty line.
        request: the request's id, for the answer.
        max_size: the largest message that is read, in bytes; a larger one closes with 1009.

    Raises:
        Refusal: no handshake, or not of version 13.
    """
    protocol = SocketProtocol(select_subprotocol=_select, max_size=max_size, logger=_quiet)
    protocol.receive_data(raw_head)
    events = protocol.events_received()
    if not events:
        raise Refusal(400, f"no WebSocket handshake: {protocol.handshake_exc}")
    response = protocol.accept(events[0])  # type: ignore[arg-type]
    if response.status_code != 101:
        error = protocol.handshake_exc
        if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
            # RFC 6455 4.4: say which version is spoken.
            raise Refusal(426, str(error), [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")])
        kept = [(name, response.headers[name]) for name in ("Upgrade", "Allow") if name in response.headers]
        raise Refusal(response.status_code, str(error), kept)
    response.headers["X-Request-Id"] = request
    protocol.send_response(response)
    # The protocol's parser keeps the request for as long as it lives, and nobody asks it again: 2 KiB of each socket.
    events[0].headers.clear()  # type: ignore[union-attr]
    return protocol


def status_of(error: TaskdError | Refusal) -> int:
    """Return the status that answers a handshake which failed by this error."""
    if isinstance(error, Refusal):
        return error.status
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def refusal(error: TaskdError | Refusal, request: str) -> bytes:
    """Return the HTTP answer to a handshake that failed; it ends the connection."""
    headers: list[tuple[str, str]] = []
    problem: dict[str, object]
    status = status_of(error)
    if isinstance(error, Refusal):
        headers += error.headers
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase}
        detail = error.message
    else:
        problem = {"type": f"/problems/{error.code}", "title": error.title}
        detail = str(error)
    problem |= {"status": status, "detail": detail, "request_id": request}
    if isinstance(error, Invalid):
        problem["errors"] = [{"field": fault.field, "message": fault.message} for fault in error.faults]
    if isinstance(error, errors.RateLimited | errors.Unavailable):
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after)))))
    if isinstance(error, TooManyCalls):
        headers += error.allowance.fields
    if isinstance(error, errors.Unauthenticated):
        headers.append(("WWW-Authenticate", "Bearer"))
    body = dump_json(problem).encode("utf-8", "backslashreplace")
    headers += [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("X-Request-Id", request),
        ("Connection", "close"),
    ]
    return response_head(status, headers, now=time.time()) + body
