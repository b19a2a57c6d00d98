"""Line ends, the request line, methods, versions and targets."""

from __future__ import annotations

from tests.http1.rows.row import END, GET, HOST, OLD, Row, Wanted, bad, good


def line(text: bytes) -> bytes:
    """Return a request with this first line."""
    return text + b"\r\n" + HOST + END


def target(text: bytes) -> bytes:
    """Return a request for this target."""
    return line(b"GET " + text + b" HTTP/1.1")


LINE_ENDS: list[Row] = [
    bad("bare LF everywhere", "9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    bad("bare LF behind the request line", "9112 2.2", b"GET / HTTP/1.1\n" + HOST + END),
    bad("bare LF behind a field", "9112 2.2", GET + b"A: b\nC: d\r\n\r\n"),
    bad("bare LF as the empty line", "9112 2.2", GET + b"\n"),
    bad("LF LF ends the head", "9112 2.2", GET + b"A: b\n\n"),
    bad("LF CR LF ends the head", "9112 2.2", GET + b"A: b\n\r\n"),
    bad("CR LF LF ends the head", "9112 2.2", GET + b"A: b\r\n\n"),
    bad("CR CR LF behind a field", "9112 2.2", GET + b"A: b\r\r\n\r\n"),
    bad("CR CR LF as the empty line", "9112 2.2", GET + b"\r\r\n"),
    bad("bare CR behind the request line", "9112 2.2", b"GET / HTTP/1.1\r" + HOST + END),
    bad("bare CR behind a field", "9112 2.2", GET + b"A: b\rC: d\r\n\r\n"),
    bad("bare CR within a target", "9112 2.2", target(b"/\ra")),
    bad("bare LF within a target", "9112 2.2", target(b"/\na")),
    bad("bare CR in front", "9112 2.2", b"\r" + GET + END),
    bad("bare LF in front", "9112 2.2", b"\n" + GET + END),
    good("one empty line in front", "9112 2.2", b"\r\n" + GET + END),
    bad("two empty lines in front", "9112 2.2", b"\r\n\r\n" + GET + END),
    bad("empty lines only", "9112 2.2", b"\r\n\r\n"),
    bad("a space in front", "9112 2.2", b" " + GET + END),
    bad("a NUL in front", "9112 2.2", b"\0" + GET + END),
    bad("a byte order mark in front", "9112 2.2", b"\xef\xbb\xbf" + GET + END),
]

FORM: list[Row] = [
    bad("HTTP/0.9: no version", "9112 3", line(b"GET /")),
    bad("no target", "9112 3", line(b"GET HTTP/1.1")),
    bad("an empty target", "9112 3", line(b"GET  HTTP/1.1")),
    bad("the method alone", "9112 3", line(b"GET")),
    bad("a field for a request line", "9112 3", HOST + END),
    bad("two spaces before the target", "9112 3", line(b"GET  / HTTP/1.1")),
    bad("two spaces behind the target", "9112 3", line(b"GET /  HTTP/1.1")),
    bad("a space behind the version", "9112 3", line(b"GET / HTTP/1.1 ")),
    bad("a tab behind the version", "9112 3", line(b"GET / HTTP/1.1\t")),
    bad("a fourth part", "9112 3", line(b"GET / HTTP/1.1 GET")),
    bad("two versions", "9112 3", line(b"GET / HTTP/1.1 HTTP/1.1")),
    bad("a tab before the target", "9112 3", line(b"GET\t/ HTTP/1.1")),
    bad("a tab behind the target", "9112 3", line(b"GET /\tHTTP/1.1")),
    bad("a form feed behind the target", "9112 3", line(b"GET /\x0cHTTP/1.1")),
    bad("a vertical tab before the target", "9112 3", line(b"GET\x0b/ HTTP/1.1")),
    bad("a no-break space before the target", "9112 3", line(b"GET\xa0/ HTTP/1.1")),
    bad("a status line", "9112 3", line(b"HTTP/1.1 200 OK")),
    bad("a TLS hello", "9112 3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    bad("a greeting of SMTP", "9112 3", b"EHLO a\r\n\r\n"),
    bad("a command of Redis", "9112 3", b"*1\r\n$4\r\nPING\r\n\r\n"),
]

METHODS: list[Row] = [
    *(
        good(f"the method {name}", "9110 9.3", line(name.encode() + b" / HTTP/1.1"), Wanted(name))
        for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY")
    ),
    bad("CONNECT", "9110 9.3.6", line(b"CONNECT a:1 HTTP/1.1"), status=501),
    bad("CONNECT of a path", "9110 9.3.6", line(b"CONNECT / HTTP/1.1"), status=501),
    bad("an unknown method", "9110 9.1", line(b"BREW / HTTP/1.1"), status=501),
    bad("a method of WebDAV", "9110 9.1", line(b"PROPFIND / HTTP/1.1"), status=501),
    bad("a method with a hyphen", "9110 9.1", line(b"M-SEARCH / HTTP/1.1"), status=501),
    bad("lower case", "9110 9.1", line(b"get / HTTP/1.1"), status=501),
    bad("mixed case", "9110 9.1", line(b"Get / HTTP/1.1"), status=501),
    bad("a longer one that begins alike", "9110 9.1", line(b"GETT / HTTP/1.1"), status=501),
    bad("a shorter one", "9110 9.1", line(b"GE / HTTP/1.1"), status=501),
    bad("a long method", "9112 3", line(b"A" * 100 + b" / HTTP/1.1"), status=501),
    bad("no method", "9110 9.1", line(b" / HTTP/1.1")),
    *(
        bad(f"{chr(byte)!r} in a method", "9110 5.6.2", line(b"G" + bytes([byte]) + b"T / HTTP/1.1"))
        for byte in b'"(),/:;<=>?@[\\]{}\x80\xff\x00\x01\x1b\x7f'
    ),
]

VERSIONS: list[Row] = [
    good("HTTP/1.0", "9112 2.3", OLD + END, closed=True),
    *(
        bad(f"the version {text!r}", "9112 2.3", line(b"GET / " + text))
        for text in (
            b"http/1.1", b"Http/1.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/11.1", b"HTTP/01.1",
            b"HTTP/1.01", b"HTTP/1,1", b"HTTP 1.1", b"HTTP1.1", b"HTTP/", b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/1.x",
            b"HTTP/x.1", b"HTTP/1.1.1", b"HTTPS/1.1", b"HTP/1.1", b"FTP/1.1", b"ICE/1.0", b"RTSP/1.0", b"HTTP/\xb9.1",
            b"HTTP/1.\xc2\xb9", b"HTTP/\xd9\xa1.1", b"HTTP/1.1\0", b"HTTP//1.1", b"HTTP\\1.1", b"\xa0HTTP/1.1", b"1.1",
        )
    ),
    *(
        bad(f"the version {text!r}", "9110 15.6.6", line(b"GET / " + text), status=505)
        for text in (b"HTTP/0.9", b"HTTP/0.0", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9")
    ),
    bad("HTTP/2 with prior knowledge", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=505),
]  # fmt: skip

TARGETS: list[Row] = [
    *(
        good(f"the target {text!r}", "9112 3.2.1", target(text), Wanted(target=text))
        for text in (
            b"/a/b;c=d/e", b"/?a=b&c", b"/a?b?c=d", b"/?", b"//", b"//a/b", b"///a", b"/%41%c3%a9", b"/..", b"/../a",
            b"/a:b@c", b"/~a!$&'()*+,;=", b"/?a=/b:c@d", b"/http://a/", b'/"a"|b{c}', b"/<a>\\^`",
        )
    ),
    *(
        bad(f"the target {text!r}", "9112 3.2", target(text))
        for text in (
            b"x", b"a/b", b"?a=b", b"./a", b"../a", b"*", b"*/", b"/#a", b"/a?b#c", b"#", b"#/", b"/\xc3\xa9", b"/\xff",
            b"/\x80", b"/\x00", b"/\x01", b"/\x1f", b"/\x7f", b"/\t", b"/a b", b"\\", b"/?a b", b":80", b"a:80",
        )
    ),
    *(
        bad(f"the target {text!r}", "3986 2.1", target(text))
        for text in (b"/%", b"/%4", b"/%zz", b"/%4g", b"/%%41", b"/?a=%", b"/?%u0041", b"/a%\xff0", b"http://a/%")
    ),
    *(
        good(f"the target {text!r}", "9112 3.2.2", target(text), Wanted(target=text))
        for text in (b"http://a", b"http://a/", b"http://a?b", b"HTTP://A/b", b"https://a/b?c=d", b"http://a//b")
    ),
    *(
        bad(f"the target {text!r}", "9112 3.2.2", target(text))
        for text in (
            b"ftp://a/", b"ws://a/", b"file:///a", b"http:/a", b"http:a", b"http://", b"http:///a", b"://a/",
            b"s://]a/:",
            b"http://:80/", b"http://a:b/", b"http://a:-1/", b"http://a:999999/", b"http://a b/", b"http://a#b",
            b"http://a\\b/", b"http://[::1/", b"http://a,http://b/\xff", b"javascript:a", b"data:,a",
        )
    ),
    bad("user information in a target", "9110 4.2.4", target(b"http://u@a/")),
    bad("a password in a target", "9110 4.2.4", target(b"http://u:p@a/")),
    bad("a target of another host", "9112 3.2.2", target(b"http://b/")),
    bad("a target of another port", "9112 3.2.2", target(b"http://a:81/")),
    bad("a target of a longer host", "9112 3.2.2", target(b"http://a.b/")),
    good("a target with the host of Host", "9112 3.2.2", b"GET http://[::1]:8/ HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
         Wanted(target=b"http://[::1]:8/")),
    bad("a target with a host, but no Host", "9112 3.2", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    good("OPTIONS *", "9112 3.2.4", line(b"OPTIONS * HTTP/1.1"), Wanted("OPTIONS", b"*")),
    bad("POST *", "9112 3.2.4", line(b"POST * HTTP/1.1")),
    bad("OPTIONS of two asterisks", "9112 3.2.4", line(b"OPTIONS ** HTTP/1.1")),
    bad("OPTIONS of an authority", "9112 3.2.3", line(b"OPTIONS a:80 HTTP/1.1")),
    bad("GET of an authority", "9112 3.2.3", target(b"a.example:80")),
]  # fmt: skip

ROWS: list[Row] = [*LINE_ENDS, *FORM, *METHODS, *VERSIONS, *TARGETS]
