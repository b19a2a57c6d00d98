"""Requests after one another, the connection's end, expectations, and upgrades."""

from __future__ import annotations

from tests.http1.rows.row import CHUNKED, END, GET, HOST, LINE, OLD, Row, Wanted, bad, good


def to(path: bytes, *fields: bytes) -> bytes:
    """Return a request for `path`."""
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + END


def asked(*paths: bytes) -> tuple[Wanted, ...]:
    return tuple(Wanted(target=path) for path in paths)


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
SOCKET = (b"Connection: Upgrade", b"Upgrade: websocket")

PIPELINES: list[Row] = [
    good("two requests", "9112 9.3.2", to(b"/1") + to(b"/2"), *asked(b"/1", b"/2")),
    good("ten requests", "9112 9.3.2", b"".join(to(b"/%d" % n) for n in range(10)),
        *asked(*(b"/%d" % n for n in range(10)))),
    good("bodies between them", "9112 9.3.2", POST + CHUNKED + b"1\r\nx\r\n0\r\n\r\n" + POST,
         Wanted("POST", body=b"abc"), Wanted(body=b"x"), Wanted("POST", body=b"abc")),
    good("an empty line between each", "9112 2.2", (POST + b"\r\n") * 2 + to(b"/1"),
         *[Wanted("POST", body=b"abc")] * 2, Wanted(target=b"/1")),
    good("an empty line behind a request without a body", "9112 2.2", to(b"/1") + b"\r\n" + to(b"/2"), *asked(b"/1",
        b"/2")),
    bad("a bare LF between them", "9112 2.2", POST + b"\n" + to(b"/2"), after=(Wanted("POST", body=b"abc"),)),
    bad("a bare CR between them", "9112 2.2", POST + b"\r" + to(b"/2"), after=(Wanted("POST", body=b"abc"),)),
    bad("a space between them", "9112 3", POST + b" " + to(b"/2"), after=(Wanted("POST", body=b"abc"),)),
    bad("a NUL between them", "9112 3", POST + b"\0" + to(b"/2"), after=(Wanted("POST", body=b"abc"),)),
    bad("the second has no Host", "9112 3.2", to(b"/1") + LINE + END + to(b"/3"), after=asked(b"/1")),
    bad("the second is of HTTP/0.9", "9112 3", to(b"/1") + b"GET /2\r\n\r\n", after=asked(b"/1")),
    bad("the second is of HTTP/2", "9113 3.4", to(b"/1") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=505,
        after=asked(b"/1")),
    bad("the second is an answer", "9112 3", to(b"/1") + b"HTTP/1.1 200 OK\r\n\r\n", after=asked(b"/1")),
    bad("the second is a control byte", "9112 3", to(b"/1") + b"\x16", after=asked(b"/1")),
    bad("the third has both lengths", "9112 6.1",
        to(b"/1") + POST + GET + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        after=(*asked(b"/1"), Wanted("POST", body=b"abc"))),
    bad("the second is too long", "6585 5", to(b"/1") + GET + b"A: " + b"b" * 400, status=431, after=asked(b"/1")),
    bad("the second's bad chunk", "9112 7.1", to(b"/1") + CHUNKED + b"x\r\n", after=asked(b"/1")),
    good("HTTP/1.0 that is kept, then HTTP/1.1", "9112 9.3", OLD + b"Connection: keep-alive\r\n\r\n" + to(b"/2"),
         Wanted(), Wanted(target=b"/2")),
    good("HTTP/1.0 with a body that is kept", "9112 9.3",
         OLD + b"Connection: keep-alive\r\nContent-Length: 1\r\n\r\nx" + to(b"/2"), Wanted(body=b"x"),
         Wanted(target=b"/2")),
]  # fmt: skip

ENDS: list[Row] = [
    *(
        good(f"Connection: {value.decode()}", "9112 9.6", GET + b"Connection: " + value + b"\r\n\r\n", closed=True)
        for value in (b"close", b"Close", b"CLOSE", b"close\t", b"keep-alive, close", b"close, keep-alive",
        b"a,close,b", b", close",
                      b"upgrade, close")
    ),
    *(
        good(f"Connection: {value.decode()!r}", "9112 9.3", GET + b"Connection: " + value + b"\r\n\r\n")
        for value in (b"", b"keep-alive", b"Keep-Alive", b"closed", b"xclose", b"close-x", b"te", b"a, b",
        b"transfer-encoding, host")
    ),
    good("close on a second line", "9110 5.3", GET + b"Connection: keep-alive\r\nConnection: close\r\n\r\n",
        closed=True),
    good("close with a body", "9112 9.6", GET + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", body=b"x",
        closed=True),
    good("close with chunks", "9112 9.6",
        GET + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
         body=b"x", closed=True),
    good("nothing behind close is read", "9112 9.6", to(b"/1", b"Connection: close") + to(b"/2"), *asked(b"/1"),
        closed=True),
    good("not even what is none", "9112 9.6", to(b"/1", b"Connection: close") + b"\0\xff\n", *asked(b"/1"),
        closed=True),
    good("HTTP/1.0, and a body without a length", "9112 6.3", OLD + b"\r\nbody", closed=True),
    good("HTTP/1.0 that is kept", "9112 9.3", OLD + b"Connection: Keep-Alive\r\n\r\n"),
    good("HTTP/1.0 that is kept and closed", "9112 9.3", OLD + b"Connection: keep-alive, close\r\n\r\n", closed=True),
    good("Proxy-Connection means nothing", "9112 C.2.2", OLD + b"Proxy-Connection: keep-alive\r\n\r\n", closed=True),
    good("Keep-Alive alone means nothing", "9112 C.2.2", OLD + b"Keep-Alive: timeout=5\r\n\r\n", closed=True),
]  # fmt: skip

EXPECTATIONS: list[Row] = [
    good("100-continue", "9110 10.1.1", GET + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx", body=b"x"),
    good("100-continue in other case", "9110 10.1.1", GET + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
        body=b"x"),
    good("100-continue without a body", "9110 10.1.1", GET + b"Expect: 100-continue\r\n\r\n"),
    good("an expectation in HTTP/1.0", "9110 10.1.1", OLD + b"Expect: x\r\n\r\n", closed=True),
    *(
        bad(f"the expectation {value!r}", "9110 10.1.1",
            GET + b"Expect: " + value + b"\r\nContent-Length: 1\r\n\r\nx", status=417)
        for value in (b"", b"the worst", b"100", b"continue", b"100 continue", b"y 100-continue", b"100-continue, x",
        b"100-continue;a",
                      b"100-continue, 100-continue", b"x=y", b"200-ok")
    ),
    bad("100-continue on two lines", "9110 10.1.1", GET + b"Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
        status=417),
    bad("an expectation behind a bare LF", "9112 2.2", GET + b"Expect:\n 100-continue\r\n\r\n"),
]  # fmt: skip

UPGRADES: list[Row] = [
    good("an upgrade that nobody takes leaves the connection as it was", "9110 7.8", to(b"/1", *SOCKET) + to(b"/2"),
        *asked(b"/1", b"/2")),
    good("an upgrade with a body", "9110 7.8",
        GET + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx", body=b"x"),
    good("h2c is not spoken", "9113 3.1", to(b"/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABk")),
    good("TLS within is not spoken", "2817 3",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n",
         Wanted("OPTIONS", b"*")),
    good("an upgrade and close", "9110 7.8", to(b"/", b"Connection: Upgrade, close", b"Upgrade: websocket"),
        closed=True),
    good("an upgrade in HTTP/1.0", "9110 7.8", OLD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", closed=True),
    bad("an upgrade without Host", "9112 3.2", LINE + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    bad("an upgrade with both lengths", "9112 6.1",
        to(b"/", *SOCKET, b"Content-Length: 1", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    bad("a frame behind an upgrade that nobody takes", "9110 7.8", to(b"/1", *SOCKET) + b"\x81\x05hello\r\n\r\n",
        after=asked(b"/1")),
]  # fmt: skip

ROWS: list[Row] = [*PIPELINES, *ENDS, *EXPECTATIONS, *UPGRADES]
