"""Bodies in chunks: sizes, extensions, data, trailers."""

from __future__ import annotations

from tests.http1.rows.row import CHUNKED, Row, bad, good

LAST = b"0\r\n\r\n"

SIZES: list[Row] = [
    good("no chunk but the last", "9112 7.1", CHUNKED + LAST),
    good("one chunk", "9112 7.1", CHUNKED + b"5\r\nhello\r\n" + LAST, body=b"hello"),
    good("chunks are joined", "9112 7.1", CHUNKED + b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n" + LAST,
        body=b"hello world"),
    good("lower case", "9112 7.1", CHUNKED + b"a\r\n0123456789\r\n" + LAST, body=b"0123456789"),
    good("upper case", "9112 7.1", CHUNKED + b"A\r\n0123456789\r\n" + LAST, body=b"0123456789"),
    good("two digits", "9112 7.1", CHUNKED + b"1E\r\n" + b"x" * 30 + b"\r\n" + LAST, body=b"x" * 30),
    good("zeros in front", "9112 7.1", CHUNKED + b"00001\r\nx\r\n" + LAST, body=b"x"),
    good("many zeros for the last", "9112 7.1", CHUNKED + b"0000\r\n\r\n"),
    good("sixteen digits", "9112 7.1", CHUNKED + b"0000000000000001\r\nx\r\n" + LAST, body=b"x"),
    bad("seventeen digits", "9112 7.1", CHUNKED + b"00000000000000001\r\nx\r\n"),
    bad("2^64", "9112 7.1", CHUNKED + b"10000000000000000\r\nx\r\n"),
    bad("2^64 and one, for a reader of 64 bits", "9112 7.1", CHUNKED + b"10000000000000001\r\nx\r\n"),
    bad("2^64 - 1", "9112 7.1", CHUNKED + b"ffffffffffffffff\r\n", status=413),
    bad("2^63", "9112 7.1", CHUNKED + b"8000000000000000\r\n", status=413),
    bad("2^32 and one, for a reader of 32 bits", "9112 7.1", CHUNKED + b"100000001\r\nx\r\n", status=413),
    *(
        bad(f"the size {size!r}", "9112 7.1", CHUNKED + size + b"\r\nx\r\n")
        for size in (
            b"", b"g", b"x", b"0x1", b"0X1", b"1h", b"x1", b"+1", b"-1", b"+0", b"-0", b" 1", b"1 ", b"\t1", b"1\t",
            b"1 1", b"1_",
            b"1_0", b"_1", b"1.", b"1,", b"1:", b"1=", b"1\0", b"\x001", b"1\x0b", b"\x0c1", b"1\xa0", b"\xb9",
            b"\xd9\xa1", b'"1"',
            b"1\t;a", b"1\x7f", b"#1", b"%31", b"0.1", b"(1)", b"1#a", b"1/", b"1\x00;a",
        )
    ),
    bad("a bare LF behind the size", "9112 2.2", CHUNKED + b"1\nx\r\n"),
    bad("a bare CR behind the size", "9112 2.2", CHUNKED + b"1\rx\r\n"),
    bad("CR CR LF behind the size", "9112 2.2", CHUNKED + b"1\r\r\nx\r\n"),
    bad("an empty line before the size", "9112 7.1", CHUNKED + b"\r\n1\r\nx\r\n"),
    bad("a bare LF behind the last size", "9112 2.2", CHUNKED + b"0\n\r\n"),
    bad("bare LF only", "9112 2.2", CHUNKED + b"1\nx\n0\n\n"),
    bad("a space behind the last size", "9112 7.1", CHUNKED + b"0 \r\n\r\n"),
]  # fmt: skip

DATA: list[Row] = [
    good("any byte", "9112 7.1", CHUNKED + b"9\r\n\r\n\0\xff\n\r0\r\n\r\n" + LAST, body=b"\r\n\0\xff\n\r0\r\n"),
    good("a last chunk within a chunk", "9112 7.1", CHUNKED + b"5\r\n0\r\n\r\n\r\n" + LAST, body=b"0\r\n\r\n"),
    bad("longer than its size", "9112 7.1", CHUNKED + b"1\r\nxy\r\n"),
    bad("shorter than its size", "9112 7.1", CHUNKED + b"3\r\nx\r\n0\r\n\r\n"),
    bad("a bare LF behind it", "9112 7.1", CHUNKED + b"1\r\nx\n0\r\n\r\n"),
    bad("a bare CR behind it", "9112 7.1", CHUNKED + b"1\r\nx\r0\r\n\r\n"),
    bad("LF CR behind it", "9112 7.1", CHUNKED + b"1\r\nx\n\r0\r\n\r\n"),
    bad("CR CR LF behind it", "9112 7.1", CHUNKED + b"1\r\nx\r\r\n0\r\n\r\n"),
    bad("nothing behind it", "9112 7.1", CHUNKED + b"1\r\nx0\r\n\r\n"),
    bad("two bytes in place of CRLF", "9112 7.1", CHUNKED + b"1\r\nxab0\r\n\r\n"),
    bad("CR and a byte in place of CRLF", "9112 7.1", CHUNKED + b"1\r\nx\rb0\r\n\r\n"),
    bad("two CRLF behind it", "9112 7.1", CHUNKED + b"1\r\nx\r\n\r\n0\r\n\r\n"),
    bad("a request in place of the next size", "9112 7.1", CHUNKED + b"1\r\nx\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("no last chunk", "9112 7.1", CHUNKED + b"1\r\nx\r\n\r\n"),
]

EXTENSIONS: list[Row] = [
    *(
        good(f"the extension {text!r}", "9112 7.1.1", CHUNKED + b"1" + text + b"\r\nx\r\n" + LAST, body=b"x")
        for text in (b";a", b";a=b", b";a;b=c;d", b';a="b"', b';a=""', b';a="\\""', b';a="b;c"', b';a="b c"',
        b";!#$=%&'", b';a="\t"',
                     b';a="\xff"')
    ),
    good("an extension of the last chunk", "9112 7.1.1", CHUNKED + b"1\r\nx\r\n0;a=b\r\n\r\n", body=b"x"),
    *(
        bad(f"the extension {text!r}", "9112 7.1.1", CHUNKED + b"1" + text + b"\r\nx\r\n")
        for text in (
            b";", b";;a", b";a;", b";=b", b";a=", b";a==b", b';a="b', b';a=b"', b';a="b"c', b";a b", b"; a", b";a =b",
            b";a= b", b";a ",
            b" ;a", b";a=b ", b";a=b,c", b";a=(b)", b";a@b", b";a:b", b";a\0", b";a=\0", b';a="\0"', b';a="\x7f"',
            b";a=\xff",
            b";\xff", b";a\x0b", b";a\t", b';a="\\', b';a="\\\x01"', b";a=[b]", b";a/b",
        )
    ),
    bad("a bare LF behind an extension", "9112 2.2", CHUNKED + b"1;a\nx\r\n"),
    bad("a bare CR within an extension", "9112 2.2", CHUNKED + b"1;a\rb\r\nx\r\n"),
    bad("a bare LF within an extension", "9112 2.2", CHUNKED + b"1;a\nb\r\nx\r\n"),
    bad("a bare LF within a quoted value", "9112 2.2", CHUNKED + b'1;a="\n"\r\nx\r\n'),
    bad("a quoted CRLF", "9112 7.1.1", CHUNKED + b'1;a="\r\n"\r\nx\r\n'),
    bad("an escaped CRLF", "9112 7.1.1", CHUNKED + b'1;a="\\\r\n"\r\nx\r\n'),
    bad("a bad extension of the last chunk", "9112 7.1.1", CHUNKED + b"1\r\nx\r\n0;\r\n\r\n"),
]  # fmt: skip

TRAILERS: list[Row] = [
    good("one trailer", "9112 7.1.2", CHUNKED + b"1\r\nx\r\n0\r\nA: b\r\n\r\n", body=b"x",
        fields=((b"transfer-encoding", b"chunked"),)),
    good("several trailers", "9112 7.1.2", CHUNKED + b"0\r\nA: b\r\nC:\r\nA: d\r\n\r\n"),
    good("a trailer that means nothing here", "9110 6.5.1",
        CHUNKED + b"0\r\nAuthorization: a\r\nExpect: b\r\n\r\n"),
    *(
        bad(f"the trailer {text!r}", "9110 6.5.1", CHUNKED + b"0\r\n" + text + b"\r\n\r\n")
        for text in (
            b"Content-Length: 3", b"content-length: 0", b"Transfer-Encoding: chunked", b"transfer-encoding: x",
            b"Host: b", b"Connection: close", b"connection: keep-alive", b"Upgrade: x", b"TE: trailers", b"Trailer: a",
            b"Keep-Alive: timeout=5", b"A: b\r\nContent-Length: 1",
        )
    ),
    *(
        bad(f"the trailer {text!r}", "9112 5", CHUNKED + b"0\r\n" + text + b"\r\n\r\n")
        for text in (b"A : b", b" A: b", b"A", b": b", b"A: b\r\n c", b"A: b\0", b"A\x01: b", b"A: b\x7f",
        b"A: b\rC: d", b"A: b\nC: d",
                     b"\xff: b", b"A(: b", b"GET / HTTP/1.1\r\nHost: a")
    ),
    bad("a bare LF behind a trailer", "9112 2.2", CHUNKED + b"0\r\nA: b\n\r\n"),
    bad("a bare LF behind the trailers", "9112 2.2", CHUNKED + b"0\r\nA: b\r\n\n"),
    bad("a bare LF in place of trailers", "9112 2.2", CHUNKED + b"0\r\n\n"),
    bad("a bare CR in place of trailers", "9112 2.2", CHUNKED + b"0\r\n\rx"),
    bad("a chunk behind the last", "9112 7.1", CHUNKED + b"0\r\n1\r\nx\r\n\r\n"),
]  # fmt: skip

ROWS: list[Row] = [*SIZES, *DATA, *EXTENSIONS, *TRAILERS]
