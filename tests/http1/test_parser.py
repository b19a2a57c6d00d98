"""What a head says, and what becomes of bytes that are nobody's; `test_rows.py` has the table of requests."""

from __future__ import annotations

import pytest

from taskd.http1.parser import Closed, End, Head, Parser
from tests.http1.reading import SMALL, read
from tests.http1.rows.row import CHUNKED, GET


def head_of(raw: bytes) -> Head:
    """Return the head of the first request."""
    return read(raw).requests[0].head


def test_a_head_says_what_it_holds() -> None:
    raw = b"PATCH /x HTTP/1.1\r\nHost: a\r\nA: 1\r\na: 2\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    head = head_of(raw)
    assert (head.method, head.target, head.version) == ("PATCH", b"/x", (1, 1))
    assert head.get(b"a") == b"1, 2"
    assert head.get(b"b") is None
    assert (head.content_length, head.chunked, head.expect_continue, head.upgrade) == (3, False, True, None)
    assert head.raw == raw
    assert (head_of(CHUNKED).content_length, head_of(CHUNKED).chunked) == (None, True)


@pytest.mark.parametrize("raw", [GET + b"Expect: 100-continue\r\n\r\n", b"POST / HTTP/1.0\r\nExpect: x\r\n\r\n"])
def test_an_expectation_without_a_body_or_of_an_old_client_is_none(raw: bytes) -> None:
    assert not head_of(raw).expect_continue


def test_an_upgrade_leaves_what_follows_alone() -> None:
    raw = GET + b"Connection: x, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    parser = Parser(SMALL)
    parser.feed(raw + b"\x81\x05frame\n\x00")
    head = parser.next_event()
    assert isinstance(head, Head)
    assert head.upgrade == b"websocket"
    assert parser.trailing() == b"\x81\x05frame\n\x00"
    assert isinstance(parser.next_event(), Closed)


@pytest.mark.parametrize(
    "raw",
    [
        GET + b"Upgrade: websocket\r\n\r\n",
        GET + b"Connection: upgrade\r\n\r\n",
        GET + b"Connection: upgraded\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_an_upgrade_needs_both_fields_and_http_1_1(raw: bytes) -> None:
    assert head_of(raw).upgrade is None


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", GET + b"\r\n"])
def test_an_end_between_requests_is_an_end(data: bytes) -> None:
    told = read(data, eof=True)
    assert (told.status, told.closed) == (None, True)


def test_what_comes_behind_the_last_request_is_not_kept() -> None:
    parser = Parser(SMALL)
    parser.feed(GET + b"Connection: close\r\n\r\n")
    assert isinstance(parser.next_event(), Head)
    assert isinstance(parser.next_event(), End)
    assert isinstance(parser.next_event(), Closed)
    parser.feed(b"x" * 100_000)
    assert isinstance(parser.next_event(), Closed)
    assert not parser._buffer
