"""Two other parsers as second opinions on one request: h11, and llhttp (httptools) in its strict mode."""

from __future__ import annotations

from typing import NamedTuple

import h11
import httptools

from taskd.http1.limits import BadRequest, Limits
from taskd.http1.parser import Body, End, Head, NeedData, Parser

Pairs = tuple[tuple[bytes, bytes], ...]


class Opinion(NamedTuple):
    """One request, as somebody read it."""

    method: str
    target: bytes
    version: str
    headers: Pairs
    body: bytes


def of_taskd(data: bytes, limits: Limits) -> list[tuple[bytes, Opinion]]:
    """Return the whole requests in `data`, each with its bytes, without the empty line that is forgiven in front."""
    parser, found = Parser(limits), []
    head: Head | None = None
    begin, body = 0, b""
    for place in range(len(data)):
        # One by one: so it is known where each ends.
        parser.feed(data[place : place + 1])
        try:
            while not isinstance(event := parser.next_event(), NeedData):
                if isinstance(event, Head):
                    head, body = event, b""
                elif isinstance(event, Body):
                    body += event.data
                elif isinstance(event, End):
                    assert head is not None
                    raw = data[begin : place + 1].removeprefix(b"\r\n")
                    version = f"{head.version[0]}.{head.version[1]}"
                    found.append((raw, Opinion(head.method, head.target, version, head.headers, body)))
                    begin = place + 1
                else:
                    return found
        except BadRequest:
            break
    return found


def of_h11(raw: bytes) -> list[Opinion] | None:
    """Return the requests that h11 sees, None if it refuses; what is not whole is left out."""
    found = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(raw)
    head, body = h11.Request(method="GET", target="/", headers=[("host", "a")]), b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
                method, version = bytes(head.method).decode(), bytes(head.http_version).decode()
                found.append(Opinion(method, bytes(head.target), version, headers, body))
                if connection.their_state is h11.MUST_CLOSE:
                    return found
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError:
        return None


class _Callbacks:
    """What httptools tells."""

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser
        self.found: list[Opinion] = []
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", list[tuple[bytes, bytes]](), b""

    def on_url(self, data: bytes) -> None:
        self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        # It tells of trailers too; they mean nothing here.
        if not self._complete:
            self._headers.append((name.lower(), value))

    _complete = False

    def on_headers_complete(self) -> None:
        self._complete = True

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        method = self.parser.get_method().decode()
        version = self.parser.get_http_version()
        self.found.append(Opinion(method, self._target, version, tuple(self._headers), self._body))
        self._complete = False


def of_httptools(raw: bytes) -> list[Opinion] | None:
    """Return the requests that llhttp sees, None if it refuses; what is not whole is left out."""
    told = _Callbacks()
    told.parser = httptools.HttpRequestParser(told)
    try:
        told.parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        # The request is complete; it stops there for whoever speaks the other protocol.
        return told.found
    except httptools.HttpParserError:
        return None
    return told.found


def alike(mine: Opinion, theirs: Opinion) -> bool:
    """Compare two readings. The whitespace around a value is no part of it, and h11 writes codings in lower case."""

    def plain(headers: Pairs) -> list[tuple[bytes, bytes]]:
        return [(name, value.strip(b" \t").lower() if name == b"transfer-encoding" else value.strip(b" \t"))
                for name, value in headers]  # fmt: skip

    return mine._replace(headers=()) == theirs._replace(headers=()) and plain(mine.headers) == plain(theirs.headers)
