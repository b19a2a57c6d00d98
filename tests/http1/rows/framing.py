"""Where a body ends: Content-Length, Transfer-Encoding, and both; what smuggling is made of."""

from __future__ import annotations

from tests.http1.rows.row import CHUNKED, END, GET, HOST, OLD, Row, Wanted, bad, good

EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"0\r\n\r\n"


def length(value: bytes, body: bytes = b"x") -> bytes:
    """Return a request with this Content-Length."""
    return GET + b"Content-Length: " + value + b"\r\n\r\n" + body


def coding(value: bytes, body: bytes = LAST) -> bytes:
    """Return a request with this Transfer-Encoding."""
    return GET + b"Transfer-Encoding: " + value + b"\r\n\r\n" + body


LENGTHS: list[Row] = [
    good("a length", "9112 6.2", length(b"5", b"hello"), body=b"hello"),
    good("a length of zero", "9112 6.2", length(b"0", b"")),
    good("zeros in front", "9110 8.6", length(b"0005", b"hello"), body=b"hello"),
    good("many zeros", "9110 8.6", length(b"0" * 20, b"")),
    bad("more digits than can be meant", "9110 8.6", length(b"0" * 21, b"")),
    good("whitespace around a length", "9112 5.1", GET + b"Content-Length:\t 1 \t\r\n\r\nx", body=b"x"),
    good("no whitespace before a length", "9112 5.1", GET + b"Content-Length:1\r\n\r\nx", body=b"x"),
    good("its name in other case", "9110 5.1", GET + b"cONTENT-lENGTH: 1\r\n\r\nx", body=b"x"),
    good("a body of control bytes", "9110 6.4", length(b"8", b"\r\n\0\xff\n\r\r\n"), body=b"\r\n\0\xff\n\r\r\n"),
    good("a body that looks like a request", "9112 6.3", length(b"%d" % len(EVIL), EVIL), body=EVIL),
    good("a length in HTTP/1.0", "9112 6.3", OLD + b"Content-Length: 1\r\n\r\nx", body=b"x", closed=True),
    bad("two unlike lengths", "9112 6.3", GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    bad("two equal lengths", "9110 8.6", GET + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    bad("two lengths in unlike case", "9110 8.6", GET + b"Content-Length: 1\r\ncontent-length: 1\r\n\r\nx"),
    bad("two lengths, the second empty", "9112 6.3", GET + b"Content-Length: 1\r\nContent-Length:\r\n\r\nx"),
    bad("two lengths, the first empty", "9112 6.3", GET + b"Content-Length:\r\nContent-Length: 1\r\n\r\nx"),
    bad("two lengths, the second of letters", "9112 6.3", GET + b"Content-Length: 1\r\nContent-Length: a\r\n\r\nx"),
    bad("two lengths in HTTP/1.0", "9112 6.3", OLD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    *(
        bad(f"the length {value!r}", "9110 8.6", length(value))
        for value in (
            b"", b" ", b"+1", b"-1", b"-0", b"+0", b"0x1", b"1x", b"x", b"1.0", b"1e0", b"1 1", b"1\t1", b"1,1",
            b"1, 1",
            b"1, 2", b"1,", b",1", b"1;a", b"1_0", b"_1", b'"1"', b"'1'", b"(1)", b"\xb9", b"\xc2\xb9", b"\xd9\xa1",
            b"\xef\xbc\x91", b"\xa01", b"1\xa0", b"1\x0b", b"\x0c1", b"1\0", b"NaN", b"inf", b"1\x00 2", b"1 chunked",
            b"1L",
            b"0b1", b"0o1", b"#1", b"1%", b"=1",
        )
    ),
    bad("a length before a space and the colon", "9112 5.1", GET + b"Content-Length : 1\r\n\r\nx"),
    bad("a length behind a folded line", "9112 5.2", GET + b"A: b\r\n Content-Length: 1\r\n\r\nx"),
    bad("a length behind a bare CR", "9112 2.2", GET + b"A: b\rContent-Length: 1\r\n\r\nx"),
    bad("a length behind a bare LF", "9112 2.2", GET + b"A: b\nContent-Length: 1\r\n\r\nx"),
    bad("a length behind a NUL", "9110 5.5", GET + b"A: b\0Content-Length: 1\r\n\r\nx"),
    bad("a length of 2^64", "9110 8.6", length(b"18446744073709551616", b""), status=413),
    bad("a length of 2^63", "9110 8.6", length(b"9223372036854775808", b""), status=413),
    bad("a length of 2^32", "9110 8.6", length(b"4294967296", b""), status=413),
]  # fmt: skip

CODINGS: list[Row] = [
    good("chunked in other case", "9112 7", coding(b"CHUNKed")),
    good("spaces around chunked", "9112 5.1", coding(b"  chunked  ")),
    good("chunked without a space", "9112 5.1", GET + b"transfer-ENCODING:chunked\r\n\r\n" + LAST),
    *(
        bad(f"the coding {value!r}", "9112 6.1", coding(value))
        for value in (
            b"", b" ", b",", b",chunked", b"chunked,", b", chunked", b"chunked, ,", b"chunked, chunked",
            b"chunked,chunked",
            b"chunked, gzip", b"chunked, identity", b"chunked, gzip, chunked", b"gzip, chunked, gzip", b"chunked;",
            b"chunked;q=1",
            b"chunked; a=b", b'"chunked"', b"chunked chunked", b"chunked x", b"x chunked", b"chun ked",
            b"chunked\0", b"\0chunked", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x7f", b"\xa0chunked",
            b"chunked\xa0", b"chunked\xff", b"chun\xe2\x84\xaaed", b"\tchunked", b"chunked\t", b"chunked\t,",
            b"=chunked",
            b"chunked/", b"[chunked]", b"chunked:", b": chunked", b"identity,chunked,identity,chunked",
        )
    ),
    *(
        bad(f"the coding {value!r}", "9112 6.1", coding(value), status=501)
        for value in (
            b"identity", b"gzip", b"deflate", b"compress", b"x-gzip", b"br", b"none", b"xchunked", b"chunkedx",
            b"chunke",
            b"chunkedchunked", b"x-chunked", b"chunked-", b"chunked1", b"gzip, chunked", b"gzip,chunked",
            b"identity, chunked",
            b"x, chunked", b"gzip, deflate", b"trailers", b"cow",
        )
    ),
    bad("chunked on two lines", "9112 6.1",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("chunked, then another line", "9112 6.1",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + LAST),
    bad("another line, then chunked", "9112 6.1",
        GET + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        status=501),
    bad("chunked, then an empty line", "9112 6.1",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n" + LAST),
    bad("a space before the colon", "9112 5.1", GET + b"Transfer-Encoding : chunked\r\n\r\n" + LAST),
    bad("a tab before the colon", "9112 5.1", GET + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST),
    bad("a space before the name", "9112 2.2", GET + b"A: b\r\n Transfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a NUL in the name", "9110 5.1", GET + b"Transfer-\0Encoding: chunked\r\n\r\n" + LAST),
    bad("a coding behind a bare LF", "9112 2.2", GET + b"A: b\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a coding behind a bare CR", "9112 2.2", GET + b"A: b\rTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a coding behind CR and a letter", "9112 2.2", GET + b"A: b\r\n\rxTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a coding in HTTP/1.0", "9112 6.1", OLD + b"Transfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a coding in a kept HTTP/1.0", "9112 6.1",
        OLD + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("identity in HTTP/1.0", "9112 6.1", OLD + b"Transfer-Encoding: identity\r\n\r\n"),
]  # fmt: skip

BOTH: list[Row] = [
    bad("CL.TE", "9112 6.1", GET + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    bad("TE.CL", "9112 6.1", GET + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + EVIL),
    bad("TE.TE: the second is not known", "9112 6.1",
        GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n5c\r\n" + EVIL),
    bad("a length of zero, and chunked", "9112 6.1",
        GET + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a length, and identity", "9112 6.1", GET + b"Content-Length: 1\r\nTransfer-Encoding: identity\r\n\r\nx"),
    bad("a length, and an empty coding", "9112 6.1", GET + b"Content-Length: 1\r\nTransfer-Encoding:\r\n\r\nx"),
    bad("a bad length, and chunked", "9112 6.1",
        GET + b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    bad("a length, and chunked with a tab", "9112 6.1",
        GET + b"Content-Length: 1\r\nTransfer-Encoding:\tchunked\r\n\r\nx"),
    bad("both in HTTP/1.0", "9112 6.1", OLD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx"),
    bad("CL.0: a body is read before the next request", "9112 6.3",
        GET + b"Content-Length: %d\r\n\r\n" % len(b"GET /evil HTTP/1.1\r\nX: ")
        + b"GET /evil HTTP/1.1\r\nX: GET / HTTP/1.1\r\n\r\n",
        after=(Wanted(body=b"GET /evil HTTP/1.1\r\nX: "),)),
    good("TE.0: a body of chunks is read before the next request", "9112 6.3",
         b"OPTIONS / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(EVIL) + EVIL + b"\r\n"
         + LAST,
         Wanted("OPTIONS", body=EVIL)),
    good("a body of GET, HEAD and DELETE is read", "9110 9.3.1",
         b"".join(b"%b / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" % name for name in (b"GET", b"HEAD",
         b"DELETE")),
         Wanted(body=b"x"), Wanted("HEAD", body=b"x"), Wanted("DELETE", body=b"x")),
    bad("a request hidden behind the last chunk", "9112 7.1", CHUNKED + b"0\r\nGET /evil HTTP/1.1\r\n" + HOST + END),
    bad("a body longer than its length", "9112 3", length(b"1", b"xyz\r\n\r\n"), after=(Wanted(body=b"x"),)),
    good("a body longer by an empty line", "9112 2.2", length(b"1", b"x\r\n" + EVIL), Wanted(body=b"x"),
        Wanted(target=b"/evil")),
    bad("a body longer by two empty lines", "9112 2.2", length(b"1", b"x\r\n\r\n" + EVIL), after=(Wanted(body=b"x"),)),
    bad("chunks without their coding", "9112 6.3", GET + b"\r\n1\r\nx\r\n" + LAST, after=(Wanted(),)),
]  # fmt: skip

ROWS: list[Row] = [*LENGTHS, *CODINGS, *BOTH]
