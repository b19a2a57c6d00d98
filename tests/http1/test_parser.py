"""Bytes in, events out: each case is fed whole, byte by byte, and with something behind it."""

from __future__ import annotations

import pytest

from taskd.http1.limits import BadRequest, Limits
from taskd.http1.parser import Body, Closed, End, Event, Head, NeedData, Parser

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
SMALL = Limits(head=400, fields=6, target=40, body=50, chunk_line=20, framing=60)


def read(pieces: list[bytes], limits: Limits = SMALL, eof: bool = False) -> list[Event | int]:
    """Return what a parser says to pieces: its events, bodies joined, and the status of a refusal at the end."""
    parser, told = Parser(limits), []
    for number, piece in enumerate(pieces):
        parser.feed(piece)
        if eof and number == len(pieces) - 1:
            parser.feed_eof()
        try:
            while not isinstance(event := parser.next_event(), NeedData | Closed):
                told.append(event)
            if isinstance(event, Closed) and (not told or not isinstance(told[-1], Closed)):
                told.append(event)
        except BadRequest as refusal:
            with pytest.raises(BadRequest):
                parser.next_event()
            return [*_joined(told), refusal.status]
    return _joined(told)


def _joined(told: list[Event]) -> list[Event | int]:
    joined: list[Event | int] = []
    for event in told:
        if isinstance(event, Body) and joined and isinstance(joined[-1], Body):
            joined[-1] = Body(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


def in_all_ways(data: bytes, limits: Limits = SMALL) -> list[Event | int]:
    """Return what a parser says, which must not depend on how the bytes were cut."""
    whole = read([data], limits)
    assert read([data[n : n + 1] for n in range(len(data))], limits) == whole
    for cut in range(1, len(data), 7):
        assert read([data[:cut], data[cut:]], limits) == whole
    return whole


def kinds(told: list[Event | int]) -> list[object]:
    return [event if isinstance(event, int) else type(event) for event in told]


BAD: list[tuple[int, bytes]] = [
    # Line ends and control bytes (RFC 9112 2.2, RFC 9110 5.5).
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, GET + b"A: b\nC: d\r\n\r\n"),
    (400, GET + b"A: b\rC: d\r\n\r\n"),
    (400, GET + b"A: b\x00c\r\n\r\n"),
    (400, GET + b"A: b\x7f\r\n\r\n"),
    (400, GET + b"A: b\x0b\r\n\r\n"),
    (400, b"\r\n\r\n" + GET + b"\r\n"),
    # The request line (RFC 9112 3).
    (400, b"GET /\r\n" + HOST + b"\r\n"),
    (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
    (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / http/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.10\r\n" + HOST + b"\r\n"),
    (400, b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET /#here HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET x HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET http://u@a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET http://b/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, b"query / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\n"),
    # Fields (RFC 9112 5).
    (400, GET + b"A : b\r\n\r\n"),
    (400, GET + b"A: b\r\n c\r\n\r\n"),
    (400, GET + b"A: b\r\n\tc\r\n\r\n"),
    (400, GET + b": b\r\n\r\n"),
    (400, GET + b"no colon\r\n\r\n"),
    (400, GET + b"\xc3\xa9: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    # Host (RFC 9112 3.2).
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, GET + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    (400, b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n"),
    # Framing (RFC 9112 6).
    (400, GET + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    (400, GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    (400, GET + b"Content-Length: 1, 1\r\n\r\nx"),
    (400, GET + b"Content-Length: +1\r\n\r\nx"),
    (400, GET + b"Content-Length: -1\r\n\r\nx"),
    (400, GET + b"Content-Length: 0x1\r\n\r\nx"),
    (400, GET + b"Content-Length: \xb9\r\n\r\nx"),
    (400, GET + b"Content-Length:\r\n\r\n"),
    (400, GET + b"Content-Length: " + b"0" * 21 + b"\r\n\r\n"),
    (400, GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, GET + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (400, GET + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    (400, GET + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    (400, GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n"),
    (400, GET + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n"),
    (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (501, GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (501, GET + b"Transfer-Encoding: identity\r\n\r\n"),
    (417, GET + b"Expect: the worst\r\nContent-Length: 1\r\n\r\nx"),
    # Limits.
    (413, GET + b"Content-Length: 51\r\n\r\n"),
    (414, b"GET /" + b"x" * 40 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    (414, b"GET /" + b"x" * 1000),
    (431, GET + b"A: b\r\n" * 6 + b"\r\n"),
    (431, GET + b"A: " + b"b" * 400 + b"\r\n\r\n"),
]

CHUNKED = GET + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS: list[tuple[int, bytes]] = [
    (400, b"\r\n"),
    (400, b"g\r\nx\r\n"),
    (400, b" 1\r\nx\r\n"),
    (400, b"1 \r\nx\r\n"),
    (400, b"0x1\r\nx\r\n"),
    (400, b"+1\r\nx\r\n"),
    (400, b"1\nx\r\n"),
    (400, b"1\rx\r\n"),
    (400, b"1;\r\nx\r\n"),
    (400, b"1;=b\r\nx\r\n"),
    (400, b"1;a=\r\nx\r\n"),
    (400, b'1;a="b\r\nx\r\n'),
    (400, b"1;a b\r\nx\r\n"),
    (400, b"1\r\nxy\r\n"),
    (400, b"1\r\nx\n"),
    (400, b"00000000000000001\r\nx\r\n"),
    (400, b"1;" + b"a" * 40 + b"\r\nx\r\n"),
    (400, b"1\r\nx\r\n" * 13),
    (413, b"33\r\n"),
    (413, b"ffffffffffffffff\r\n"),
    (413, b"28\r\n" + b"x" * 40 + b"\r\nb\r\n"),
    (400, b"0\r\nA : b\r\n\r\n"),
    (400, b"0\r\nA: b\n\r\n"),
    (400, b"0\r\nContent-Length: 3\r\n\r\n"),
    (431, b"0\r\n" + b"A: b\r\n" * 7 + b"\r\n"),
    (431, b"0\r\nA: " + b"b" * 400 + b"\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "data"), BAD, ids=lambda value: repr(value)[:60])
def test_what_is_refused_as_a_head(status: int, data: bytes) -> None:
    for tail in (b"", b"\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"):
        if status in (413, 414, 431) or data.endswith(b"\r\n\r\n") or tail == b"":
            told = in_all_ways(data + tail)
            assert told[-1] == status, told
            assert kinds(told)[:-1] in ([], [Head])


@pytest.mark.parametrize(("status", "chunks"), BAD_CHUNKS, ids=lambda value: repr(value)[:60])
def test_what_is_refused_as_a_chunk(status: int, chunks: bytes) -> None:
    told = in_all_ways(CHUNKED + chunks)
    assert told[-1] == status, told
    assert End not in kinds(told)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (GET + b"\r\n", b""),
        (GET + b"Content-Length: 0\r\n\r\n", b""),
        (GET + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (GET + b"Content-Length: 50\r\n\r\n" + b"x" * 50, b"x" * 50),
        (b"\r\n" + GET + b"\r\n", b""),
        (b"GET http://A/x?y HTTP/1.1\r\n" + HOST + b"\r\n", b""),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b""),
        (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b""),
        (GET + b"A:b\r\nA:\t b \r\nEmpty:\r\n\r\n", b""),
        (CHUNKED + b"0\r\n\r\n", b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"00A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", b"0123456789x"),
        (CHUNKED + b'1;a;b=c;d="e"\r\nx\r\n0\r\n\r\n', b"x"),
        (CHUNKED + b"1\r\nx\r\n0\r\nTrailer: dropped\r\n\r\n", b"x"),
    ],
)
def test_a_good_request_is_read_whole_and_so_is_the_next(data: bytes, body: bytes) -> None:
    one = in_all_ways(data)
    assert kinds(one) == ([Head, Body, End] if body else [Head, End])
    assert b"".join(event.data for event in one if isinstance(event, Body)) == body
    assert in_all_ways(data + GET + b"\r\n")[len(one) :] == in_all_ways(GET + b"\r\n")


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (GET + b"\r\n", True),
        (GET + b"Connection: close\r\n\r\n", False),
        (GET + b"Connection: keep-alive, CLOSE\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_whether_the_connection_goes_on(data: bytes, keep_alive: bool) -> None:
    told = in_all_ways(data + GET + b"\r\n")
    assert isinstance(told[0], Head)
    assert told[0].keep_alive is keep_alive
    assert kinds(told) == ([Head, End, Head, End] if keep_alive else [Head, End, Closed])


def test_a_head_says_what_it_holds() -> None:
    raw = b"PATCH /x HTTP/1.1\r\nHost: a\r\nA: 1\r\na: 2\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    head = read([raw])[0]
    assert isinstance(head, Head)
    assert (head.method, head.target, head.version) == ("PATCH", b"/x", (1, 1))
    assert head.get(b"a") == b"1, 2"
    assert head.get(b"b") is None
    assert (head.content_length, head.chunked, head.expect_continue, head.upgrade) == (3, False, True, None)
    assert head.raw == raw


def test_an_expectation_without_a_body_or_of_an_old_client_is_none() -> None:
    for raw in (GET + b"Expect: 100-continue\r\n\r\n", b"POST / HTTP/1.0\r\nExpect: x\r\n\r\n"):
        head = read([raw])[0]
        assert isinstance(head, Head)
        assert not head.expect_continue


def test_an_upgrade_needs_both_fields_and_leaves_what_follows_alone() -> None:
    raw = GET + b"Connection: x, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    parser = Parser(SMALL)
    parser.feed(raw + b"\x81\x05frame\n\x00")
    head = parser.next_event()
    assert isinstance(head, Head)
    assert head.upgrade == b"websocket"
    assert parser.trailing() == b"\x81\x05frame\n\x00"
    assert isinstance(parser.next_event(), Closed)
    old = b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    for raw in (GET + b"Upgrade: websocket\r\n\r\n", old):
        other = read([raw])[0]
        assert isinstance(other, Head)
        assert other.upgrade is None


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", GET + b"\r\n"])
def test_an_end_between_requests_is_an_end(data: bytes) -> None:
    assert kinds(read([data], eof=True))[-1] is Closed


@pytest.mark.parametrize(
    "data",
    [b"G", GET, GET + b"Content-Length: 2\r\n\r\nx", CHUNKED, CHUNKED + b"1", CHUNKED + b"1\r\nx",
     CHUNKED + b"1\r\nx\r", CHUNKED + b"0\r\n", CHUNKED + b"0\r\nA: b\r\n"],
)  # fmt: skip
def test_an_end_within_a_request_is_a_fault(data: bytes) -> None:
    assert read([data], eof=True)[-1] == 400


def test_what_comes_behind_the_last_request_is_not_kept() -> None:
    parser = Parser(SMALL)
    parser.feed(GET + b"Connection: close\r\n\r\n")
    assert isinstance(parser.next_event(), Head)
    assert isinstance(parser.next_event(), End)
    assert isinstance(parser.next_event(), Closed)
    parser.feed(b"x" * 100_000)
    assert isinstance(parser.next_event(), Closed)
