"""Requests that are read at a glance: those whose fields have come before, and which come whole and alone."""

from __future__ import annotations

import pytest

from taskd.http1.parser import Head, HeadMemo, Parser
from tests.http1.reading import SMALL, at_a_glance
from tests.http1.rows.row import CHUNKED, GET

GOOD = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"
SENT = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
FIELDS = b" HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_request_that_says_nothing_new_is_read_at_a_glance() -> None:
    found = at_a_glance(GOOD)
    assert found is not None
    head, body = found
    assert (head.method, head.target, head.version, head.raw) == ("GET", b"/a?b", (1, 1), GOOD)
    assert (head.get(b"x"), head.host, body) == (b"1", b"a", b"")
    found = at_a_glance(SENT)
    assert found is not None
    assert (found[0].content_length, found[0].raw, found[1]) == (4, SENT[:-4], b"body")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:-1],
        GOOD + b"G",
        GOOD + GOOD,
        b"\r\n" + GOOD,
        SENT[:-1],
        SENT + b"x",
        CHUNKED,
        GET + b"Connection: close\r\n\r\n",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        SENT.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        GOOD.replace(b"1.1", b"1.0"),
        GOOD.replace(b"1.1", b"2.0"),
        b"GET /%zz" + FIELDS,
        b"GET a" + FIELDS,
        b"GET http://b/" + FIELDS,
        b"OPTIONS *" + FIELDS,
        b"get /" + FIELDS,
        b"CONNECT /" + FIELDS,
        b"GET  /" + FIELDS,
        b"GET /\x7f" + FIELDS,
        b"GET /" + b"a" * SMALL.target + FIELDS,
        b"GET /" + b"a" * SMALL.head + FIELDS,
    ],
)
def test_all_else_is_read_in_full(data: bytes) -> None:
    assert at_a_glance(data) is None


def test_fields_that_nobody_has_sent_are_read_in_full() -> None:
    parser = Parser(SMALL)
    assert parser.whole(GOOD) is None
    parser.feed(GOOD)
    assert isinstance(parser.next_event(), Head)
    # Within a request, nothing is a request.
    assert parser.whole(GOOD) is None
    parser.next_event()
    assert parser.whole(GOOD) is not None
    parser.feed(GOOD[:5])
    assert parser.whole(GOOD) is None
    assert parser.buffered == 5


def test_nothing_is_read_at_a_glance_behind_a_refusal_or_the_end() -> None:
    memo = HeadMemo(SMALL)
    for spoil in (b"\n\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", None):
        parser = Parser(SMALL, memo)
        parser.feed(GOOD)
        for _ in range(2):
            parser.next_event()
        assert parser.whole(GOOD) is not None
        if spoil is None:
            parser.feed_eof()
        else:
            parser.feed(spoil)
            for _ in range(3):
                try:
                    parser.next_event()
                except Exception:
                    break
        assert parser.whole(GOOD) is None
