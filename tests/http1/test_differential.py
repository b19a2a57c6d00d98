"""Two other parsers as second opinions: what either of them refuses is refused here too.

Where this parser takes what another refuses, the reason stands beside the exception; taking less than they do is fine.
"""

from __future__ import annotations

import random

import h11
import httptools
import pytest

from taskd.http1.limits import BadRequest, Limits
from taskd.http1.parser import Body, Closed, End, Head, NeedData, Parser

SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /tasks?x=1 HTTP/1.1\r\nHost: example.org:80\r\nContent-Length: 5\r\nA: b\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nT: u\r\n\r\n",
    b"PATCH /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
PARTS = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\xff", b",", b";", b"0", b"1", b"g", b"-",
         b"+", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"HTTP/1.1",
         b"chunked"]  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """Return a request with a few random changes."""
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randint(1, 3)):
        place, part = dice.randrange(len(data) + 1), dice.choice(PARTS)
        match dice.randrange(3):
            case 0:
                data[place:place] = part
            case 1:
                data[place : place + len(part)] = part
            case _:
                del data[place : place + dice.randint(1, 3)]
    return bytes(data)


def ours(data: bytes) -> bytes | None:
    """Return the body of the first request, None when it is refused or not whole."""
    parser, body = Parser(Limits()), b""
    parser.feed(data)
    parser.feed_eof()
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, Body):
                body += event.data
            elif isinstance(event, End):
                return body
            elif isinstance(event, NeedData | Closed):
                return None
            else:
                assert isinstance(event, Head)
    except BadRequest:
        return None


def of_h11(data: bytes) -> bytes | None:
    connection, body = h11.Connection(h11.SERVER), b""
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


class Callbacks:
    """What httptools tells."""

    def __init__(self) -> None:
        self.body, self.whole = b"", False

    def on_body(self, data: bytes) -> None:
        if not self.whole:
            self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


def of_httptools(data: bytes) -> bytes | None:
    told = Callbacks()
    parser = httptools.HttpRequestParser(told)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        # An error behind the first request is none of that request's.
        return told.body if told.whole else None
    return told.body if told.whole else None


@pytest.mark.parametrize("seed", range(8))
def test_what_another_refuses_is_refused_here(seed: int) -> None:
    dice = random.Random(seed)
    taken = 0
    for _ in range(2500):
        data = mutated(dice)
        mine = ours(data)
        if mine is None:
            continue
        taken += 1
        for name, theirs in (("h11", of_h11(data)), ("httptools", of_httptools(data))):
            if theirs != mine:
                assert excused(name, data), (name, data, mine, theirs)
    assert taken > 50


def excused(name: str, data: bytes) -> bool:
    """Return whether a difference is known and right."""
    # RFC 9112 2.2: one empty line before the request line should be ignored. h11 does not.
    return name == "h11" and data.startswith(b"\r\n")
