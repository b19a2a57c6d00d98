"""Bounds, each at its edge and one beyond. They are those of `tests.http1.reading.SMALL`."""

from __future__ import annotations

from tests.http1.reading import SMALL
from tests.http1.rows.row import CHUNKED, END, GET, HOST, LINE, Row, Wanted, bad, good

LAST = b"0\r\n\r\n"
ROOM = SMALL.head - len(GET) - len(b"A: \r\n\r\n")
"""How long a field's value may be in a request with nothing else."""

PATH = b"/" + b"x" * (SMALL.target - 1)

ROWS: list[Row] = [
    good("the longest head", "9110 5.4", GET + b"A: " + b"b" * ROOM + b"\r\n\r\n"),
    bad("a head one byte longer", "6585 5", GET + b"A: " + b"b" * (ROOM + 1) + b"\r\n\r\n", status=431),
    bad("a head that does not end", "6585 5", GET + b"A: " + b"b" * SMALL.head, status=431),
    bad("a name that does not end", "6585 5", GET + b"a" * SMALL.head, status=431),
    bad("a method that does not end", "9112 3", b"G" * SMALL.head, status=431),
    bad("fields that do not end", "6585 5", GET + b"A: b\r\n" * (SMALL.head // 6), status=431),
    good("the most fields", "9110 5.4", GET + b"A: b\r\n" * (SMALL.fields - 1) + END),
    bad("a field more", "6585 5", GET + b"A: b\r\n" * SMALL.fields + END, status=431),
    bad("empty fields count", "6585 5", GET + b"A:\r\n" * SMALL.fields + END, status=431),
    good("the longest target", "9112 3", b"GET " + PATH + b" HTTP/1.1\r\n" + HOST + END, Wanted(target=PATH)),
    bad("a target one byte longer", "9112 3", b"GET " + PATH + b"x HTTP/1.1\r\n" + HOST + END, status=414),
    bad("a query that is too long", "9112 3", b"GET /?" + PATH + b" HTTP/1.1\r\n" + HOST + END, status=414),
    bad("a target that does not end", "9112 3", b"GET " + PATH + b"x", status=414),
    bad(
        "an absolute target that is too long",
        "9112 3",
        b"GET http://a" + PATH + b" HTTP/1.1\r\n" + HOST + END,
        status=414,
    ),
    good("the largest body", "9110 15.5.14", GET + b"Content-Length: 50\r\n\r\n" + b"x" * 50, body=b"x" * 50),
    bad("a body one byte larger", "9110 15.5.14", GET + b"Content-Length: 51\r\n\r\n", status=413),
    bad(
        "a large body that nobody may send",
        "9110 10.1.1",
        GET + b"Content-Length: 51\r\nExpect: 100-continue\r\n\r\n",
        status=413,
    ),
    good("the largest chunk", "9110 15.5.14", CHUNKED + b"32\r\n" + b"x" * 50 + b"\r\n" + LAST, body=b"x" * 50),
    bad("a chunk one byte larger", "9110 15.5.14", CHUNKED + b"33\r\n", status=413),
    bad(
        "chunks that are too large together", "9110 15.5.14", CHUNKED + b"28\r\n" + b"x" * 40 + b"\r\nb\r\n", status=413
    ),
    good("the longest size line", "9112 7.1.1", CHUNKED + b"1;" + b"a" * 18 + b"\r\nx\r\n" + LAST, body=b"x"),
    bad("a size line one byte longer", "9112 7.1.1", CHUNKED + b"1;" + b"a" * 19 + b"\r\nx\r\n"),
    bad("a size line that does not end", "9112 7.1.1", CHUNKED + b"1;" + b"a" * 40),
    bad("a size that does not end", "9112 7.1", CHUNKED + b"0" * 40),
    good("the most chunks", "9112 7.1.1", CHUNKED + b"1\r\nx\r\n" * 11 + LAST, body=b"x" * 11),
    bad("a chunk more", "9112 7.1.1", CHUNKED + b"1\r\nx\r\n" * 12 + LAST),
    bad("extensions that never end", "9112 7.1.1", CHUNKED + b"1;aaaaaaaaaaaa\r\nx\r\n" * 4),
    good("the most trailers", "9110 6.5", CHUNKED + b"0\r\n" + b"A: b\r\n" * SMALL.fields + END),
    bad("a trailer more", "6585 5", CHUNKED + b"0\r\n" + b"A: b\r\n" * (SMALL.fields + 1) + END, status=431),
    good("the longest trailer", "9110 6.5", CHUNKED + b"0\r\nA: " + b"b" * (SMALL.head - 7) + b"\r\n\r\n"),
    bad(
        "a trailer one byte longer", "6585 5", CHUNKED + b"0\r\nA: " + b"b" * (SMALL.head - 6) + b"\r\n\r\n", status=431
    ),
    bad("a trailer that does not end", "6585 5", CHUNKED + b"0\r\nA: " + b"b" * SMALL.head, status=431),
    bad("a control byte within bounds comes first", "9110 5.5", LINE + b"\0" + b"x" * SMALL.head),
    bad(
        "a head too long with a control byte behind its bound",
        "6585 5",
        GET + b"A: " + b"b" * SMALL.head + b"\0",
        status=431,
    ),
]
