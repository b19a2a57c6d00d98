"""What stands around the parser: memo, targets, negotiation, entity tags, answers."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from taskd.http1 import etag
from taskd.http1.accept import best
from taskd.http1.encode import chunk, http_date, response_head
from taskd.http1.head import HeadMemo
from taskd.http1.limits import BadRequest, Limits
from taskd.http1.target import split

RAW = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_head_that_comes_again_is_the_same_one() -> None:
    memo = HeadMemo(Limits())
    assert memo.read(RAW % 1) is memo.read(RAW % 1)
    assert memo.read(RAW % 1) is not memo.read(RAW % 2)


def test_the_memo_is_bounded_in_number_and_size() -> None:
    memo = HeadMemo(Limits(), entries=2, size=60)
    first = memo.read(RAW % 1)
    for number in (2, 3):
        memo.read(RAW % number)
    assert len(memo) == 2
    assert memo.read(RAW % 1) is not first
    memo.read(b"GET /" + b"x" * 60 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(memo) == 2
    none = HeadMemo(Limits(), entries=0)
    none.read(RAW % 1)
    assert len(none) == 0


def test_fields_that_come_again_mean_the_same_only_under_the_same_version() -> None:
    memo = HeadMemo(Limits())
    fields = b"Host: a\r\nUpgrade: x\r\nConnection: Upgrade\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    first, second = (memo.read(b"POST /%d HTTP/1.1\r\n%b" % (number, fields)) for number in (1, 2))
    assert second.values is first.values
    assert (second.target, second.raw) == (b"/2", b"POST /2 HTTP/1.1\r\n" + fields)
    old = memo.read(b"POST /1 HTTP/1.0\r\n" + fields)
    assert (first.keep_alive, first.upgrade, first.expect_continue) == (True, b"x", True)
    assert (old.keep_alive, old.upgrade, old.expect_continue) == (False, None, False)
    with pytest.raises(BadRequest):
        memo.read(b"POST http://b/ HTTP/1.1\r\n" + fields)


def test_a_bad_head_is_not_kept() -> None:
    memo = HeadMemo(Limits())
    for _ in range(2):
        with pytest.raises(BadRequest):
            memo.read(b"GET / HTTP/1.1\r\n\r\n")
    assert len(memo) == 0


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", []),
        (b"/a/b?c=d&e=f&c=g", "/a/b", [("c", "d"), ("e", "f"), ("c", "g")]),
        (b"/%D0%B0?%D0%B1=%D0%B2+%2B", "/а", [("б", "в +")]),
        (b"/a%2Fb%2f", "/a%2Fb%2F", []),
        (b"/?a&b=&=c&&d==e", "/", [("a", ""), ("b", ""), ("", "c"), ("d", "=e")]),
        (b"/?a=%FF", "/", [("a", "\udcff")]),
        (b"/%FF", "/\udcff", []),
        (b"http://host", "/", []),
        (b"HTTPS://host:1/x?y=z", "/x", [("y", "z")]),
        (b"http://host?y", "/", [("y", "")]),
        (b"*", "*", []),
    ],
)
def test_targets(target: bytes, path: str, query: list[tuple[str, str]]) -> None:
    assert split(target) == (path, query)


@pytest.mark.parametrize("target", [b"/%", b"/%4", b"/%zz", b"/?a=%", b"/?%G0"])
def test_bad_escapes_are_refused(target: bytes) -> None:
    with pytest.raises(BadRequest, match="percent-encoding"):
        split(target)


JSON, TEXT = "application/json", "text/plain; version=0.0.4"


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, JSON), (b"", JSON), (b"*/*", JSON), (b"text/*", TEXT), (b"application/json", JSON),
        (b"text/plain;version=0.0.4", TEXT), (b"text/plain;version=1", None), (b"image/png", None),
        (b"*/*;q=0.1, text/plain", TEXT), (b"application/json;q=0", None), (b"application/json;q=0, */*", TEXT),
        (b"application/json;q=0.5, text/plain;q=0.501", TEXT), (b"APPLICATION/JSON", JSON), (b"*/*;q=2", JSON),
        (b"nonsense, text/*;q=0.001", TEXT), (b"application/*, */*;q=0.5", JSON), (b"*/*;q=0", None),
        (b"text/plain;version=\"0.0.4\";q=1;ext", TEXT), (b" , ", JSON),
    ],
)  # fmt: skip
def test_what_is_answered_with(header: bytes | None, chosen: str | None) -> None:
    assert best(header, [JSON, TEXT]) == chosen


@pytest.mark.parametrize(
    ("header", "chosen"),
    [(None, "identity"), (b"gzip", "gzip"), (b"gzip;q=0", "identity"), (b"br", "identity"), (b"*", "gzip"),
     (b"gzip;q=0.5, identity", "identity"), (b"identity;q=0", None), (b"*;q=0", None), (b"gzip, *;q=0", "gzip")],
)  # fmt: skip
def test_which_coding_is_used(header: bytes | None, chosen: str | None) -> None:
    assert best(header, ["gzip", "identity"]) == chosen


def test_entity_tags() -> None:
    assert etag.parse(b"*").has_strong("1")
    tags = etag.parse(b'"1", W/"2" ,,\t"a,b"')
    assert [tags.has_strong(tag) for tag in ("1", "2", "a,b", "3")] == [True, False, True, False]
    assert [tags.has_weak(tag) for tag in ("1", "2", "a,b", "3")] == [True, True, True, False]
    assert etag.quote("7") == '"7"'
    for bad in (b"", b"1", b'"1', b'w/"1"', b'"1" "2"', b"*, *", b",", b'"\x01"', b'W/ "1"'):
        with pytest.raises(BadRequest):
            etag.parse(bad)


def test_an_answer_has_its_date_and_its_fields_in_order() -> None:
    head = response_head(201, [("A", "b"), ("C", "d\té")], now=784_111_777.9)
    assert head == b"HTTP/1.1 201 Created\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nA: b\r\nC: d\t\xe9\r\n\r\n"
    assert response_head(299, [], now=0).startswith(b"HTTP/1.1 299 \r\n")
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_date_is_that_of_the_standard_library() -> None:
    # Nearly every day of a leap year, each at another time.
    for moment in range(1_704_067_200, 1_735_689_600, 86_400 + 3_661):
        assert http_date(moment) == formatdate(moment, usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(99, []), (600, []), (200, [("A b", "c")]), (200, [("", "c")]), (200, [("A", "b\r\nSet-Cookie: x")]),
     (200, [("A", "b\n")]), (200, [("A", "b\0")]), (200, [("A", "b\x7f")]), (200, [("A", "привет")])],
)  # fmt: skip
def test_nothing_can_split_an_answer(status: int, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        response_head(status, headers, now=0)


def test_chunks() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    with pytest.raises(ValueError, match="ends the body"):
        chunk(b"")
