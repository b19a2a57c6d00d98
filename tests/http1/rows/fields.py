"""Field lines, and Host above all."""

from __future__ import annotations

from tests.http1.rows.row import END, GET, HOST, LINE, OLD, Row, bad, good


def host(value: bytes) -> bytes:
    """Return a request with this Host."""
    return LINE + b"Host: " + value + b"\r\n\r\n"


HOSTS: list[Row] = [
    *(
        good(f"the host {value!r}", "9110 7.2", host(value))
        for value in (
            b"a.example", b"A.Example.", b"a:80", b"a:", b"a:0", b"a:65535", b"127.0.0.1", b"127.0.0.1:8080", b"[::1]",
            b"[::1]:80", b"[::ffff:127.0.0.1]:80", b"[2001:db8::1]", b"a_b", b"xn--80ak6aa92e.example", b"%41",
            b"a-b.c~d",
            b"!$&'()*+;=",
        )
    ),
    *(
        bad(f"the host {value!r}", "9110 7.2", host(value))
        for value in (
            b"", b" ", b"a b", b"a\tb", b"a/b", b"a/", b"/a", b"http://a", b"a?b", b"a#b", b"a\\b", b"a@b", b"u:p@a",
            b":80",
            b"a:b", b"a:80:80", b"a:-1", b"a:+1", b"a:8 0", b"a: 80", b"a:65536", b"a:99999", b"a:100000",
            b"a:000000080",
            b"::1", b"[::1", b"::1]", b"[]", b"[::1]a", b"[::1]:a", b"[::1]]", b"[[::1]]", b"[a]", b"[g::1]", b"[::1:]",
            b"[:::]", b"[1:2:3:4:5:6:7:8:9]", b"[::12345]", b"[::256.0.0.1]", b"[127.0.0.1]", b"[fe80::1%eth0]",
            b"[fe80::1%25eth0]", b"[v1.a]", b"<a>", b'"a"', b"{a}", b"a|b", b"a^b", b"a`b", b"%", b"%4", b"%zz", b"a%",
            b"\xc3\xa9", b"a\xff", b"a\x00b", b"a\x01", b"a\x7f", b"a,b", b"a, b", b"a,",
        )
    ),
    bad("no Host", "9112 3.2", LINE + END),
    bad("no Host, but other fields", "9112 3.2", LINE + b"A: b\r\nHosts: a\r\n\r\n"),
    bad("two equal Hosts", "9112 3.2", GET + HOST + END),
    bad("two unlike Hosts", "9112 3.2", GET + b"Host: b\r\n\r\n"),
    bad("two Hosts in unlike case", "9112 3.2", GET + b"hOST: a\r\n\r\n"),
    bad("two Hosts with fields between them", "9112 3.2", GET + b"A: b\r\nHost: b\r\n\r\n"),
    bad("two Hosts, the second empty", "9112 3.2", GET + b"Host:\r\n\r\n"),
    bad("two Hosts, the first empty", "9112 3.2", LINE + b"Host:\r\n" + HOST + END),
    bad("a space before the colon of Host", "9112 5.1", LINE + b"Host : a\r\n\r\n"),
    bad("a space before Host", "9112 2.2", LINE + b" Host: a\r\n\r\n"),
    good("whitespace around Host", "9112 5.1", LINE + b"Host:\t a \t\r\n\r\n"),
    good("Host without a space", "9112 5.1", LINE + b"hOsT:a\r\n\r\n"),
    good("no Host in HTTP/1.0, but another field", "9112 3.2", OLD + b"A: b\r\n\r\n", closed=True),
    good("a Host in HTTP/1.0", "9112 3.2", OLD + HOST + END, closed=True),
    bad("two Hosts in HTTP/1.0", "9112 3.2", OLD + HOST + HOST + END),
    bad("a bad Host in HTTP/1.0", "9112 3.2", OLD + b"Host: a b\r\n\r\n"),
    bad("an empty Host in HTTP/1.0", "9112 3.2", OLD + b"Host:\r\n\r\n"),
]  # fmt: skip

NAMES: list[Row] = [
    *(
        bad(f"{chr(byte)!r} in a name", "9110 5.6.2", GET + b"A" + bytes([byte]) + b"B: c\r\n\r\n")
        for byte in b'"(),/;<=>?@[\\]{} \t\x00\x01\x0b\x0c\x1b\x7f\x80\xa0\xff'
    ),
    good("every character of a name", "9110 5.6.2", GET + b"!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n",
         fields=((b"!#$%&'*+-.^_`|~09azaz", b"b"),)),
    bad("an empty name", "9112 5", GET + b": b\r\n\r\n"),
    bad("a colon alone", "9112 5", GET + b":\r\n\r\n"),
    bad("no colon", "9112 5", GET + b"no colon\r\n\r\n"),
    bad("a name alone", "9112 5", GET + b"A\r\n\r\n"),
    bad("a space before the colon", "9112 5.1", GET + b"A : b\r\n\r\n"),
    bad("a tab before the colon", "9112 5.1", GET + b"A\t: b\r\n\r\n"),
    bad("a no-break space before the colon", "9112 5.1", GET + b"A\xa0: b\r\n\r\n"),
    bad("a space before the name", "9112 5.2", GET + b"A: b\r\n C: d\r\n\r\n"),
    bad("a name in UTF-8", "9110 5.1", GET + b"\xc3\xa9: b\r\n\r\n"),
    bad("a request line for a field", "9112 5", GET + b"GET / HTTP/1.1\r\n\r\n"),
    bad("a field folded with a space", "9112 5.2", GET + b"A: b\r\n c\r\n\r\n"),
    bad("a field folded with a tab", "9112 5.2", GET + b"A: b\r\n\tc\r\n\r\n"),
    bad("a folded line that is blank", "9112 5.2", GET + b"A: b\r\n \r\n\r\n"),
    bad("a first field that begins with a space", "9112 2.2", LINE + b" A: b\r\n" + HOST + END),
    bad("a first field that begins with a tab", "9112 2.2", LINE + b"\tA: b\r\n" + HOST + END),
    bad("a name that is folded before its colon", "9112 5.2", GET + b"A\r\n : b\r\n\r\n"),
    bad("Transfer-Encoding, folded", "9112 5.2", GET + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    bad("Content-Length, folded", "9112 5.2", GET + b"Content-Length:\r\n 1\r\n\r\nx"),
]  # fmt: skip

VALUES: list[Row] = [
    *(
        bad(f"{chr(byte)!r} in a value", "9110 5.5", GET + b"A: b" + bytes([byte]) + b"c\r\n\r\n")
        for byte in [*range(9), 11, 12, *range(14, 32), 127]
    ),
    bad("a NUL at a value's end", "9110 5.5", GET + b"A: b\0\r\n\r\n"),
    bad("a value that is a NUL", "9110 5.5", GET + b"A: \0\r\n\r\n"),
    bad("a form feed around a value", "9112 5.1", GET + b"A: \x0cb\r\n\r\n"),
    good("whitespace around values", "9112 5.1", GET + b"A:b\r\nC:\t d \t\r\nE:  f  g\r\n\r\n",
         fields=((b"a", b"b"), (b"c", b"d"), (b"e", b"f  g"))),
    good("values that are empty", "9110 5.5", GET + b"A:\r\nB: \t\r\n\r\n", fields=((b"a", b""), (b"b", b""))),
    good("a tab within a value", "9110 5.5", GET + b"A: b\tc\r\n\r\n", fields=((b"a", b"b\tc"),)),
    good("colons in a value", "9112 5", GET + b"A:: b:c\r\n\r\n", fields=((b"a", b": b:c"),)),
    good("bytes beyond ASCII in a value", "9110 5.5", GET + b"A: \xc3\xa9\xff\x80\r\n\r\n",
         fields=((b"a", b"\xc3\xa9\xff\x80"),)),
    good("a no-break space is not whitespace", "9110 5.6.3", GET + b"A: \xa0b\xa0\r\n\r\n", fields=((b"a",
        b"\xa0b\xa0"),)),
    good("all visible characters in a value", "9110 5.5", GET + b"A: " + bytes(range(33, 127)) + b"\r\n\r\n",
         fields=((b"a", bytes(range(33, 127))),)),
    good("two lines of a list", "9110 5.3", GET + b"Accept: a/b\r\nX: 1\r\naccept: c/d\r\n\r\n",
         fields=((b"accept", b"a/b"), (b"x", b"1"), (b"accept", b"c/d"))),
    good("cookies on two lines", "6265 5.4", GET + b"Cookie: a=b\r\nCookie: c=d\r\n\r\n"),
    good("an underscore is no hyphen", "9110 5.6.2", GET + b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n"),
    *(
        bad(f"{name} twice", "9110 5.3", GET + b"%b: %b\r\nX: y\r\n%b: %b\r\n\r\n" % (
            name.encode(), first, name.lower().encode(), second))
        for name, first, second in (
            ("Authorization", b"Bearer a", b"Bearer a"),
            ("Content-Type", b"application/json", b"text/plain"), ("Origin", b"http://a", b"http://b"),
            ("Idempotency-Key", b"a", b"b"), ("Range", b"bytes=0-1", b"bytes=2-3"), ("Referer", b"http://a",
            b"http://b"),
            ("User-Agent", b"a", b"b"), ("Max-Forwards", b"1", b"2"), ("Content-Range", b"bytes 0-1/2", b"bytes 1-2/2"),
            ("Content-Location", b"/a", b"/b"), ("If-Range", b'"a"', b'"b"'), ("From", b"a@b", b"c@d"),
            ("If-Modified-Since", b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT"),
        )
    ),
    bad("Sec-WebSocket-Key twice", "6455 11.3.1", GET + b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: b\r\n\r\n"),
    bad("Sec-WebSocket-Version twice", "6455 11.3.5",
        GET + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n\r\n"),
]  # fmt: skip

ROWS: list[Row] = [*HOSTS, *NAMES, *VALUES]
