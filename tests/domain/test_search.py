"""Queries, cursors and highlights of a search, without a database."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime
from unicodedata import normalize
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.highlight import BETWEEN, ELLIPSIS, START, STOP, marked, search_text
from taskd.domain.model import Role, Status, User
from taskd.domain.search import (
    PLACEHOLDER,
    Found,
    Place,
    SearchPage,
    SearchPlace,
    SearchQuery,
    Window,
    decode_search_cursor,
    encode_search_cursor,
    encode_search_page,
    last_word,
    parse_search_query,
)
from taskd.errors import Invalid
from tests.ws.serving import make_task

ANN = User("ann")
QUERY = SearchQuery("ann", "отчёт", statuses=(Status.NEW,), kind="k")
TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
PLACES = st.builds(Place, TIMES, st.uuids())
WINDOWS = st.builds(Window, PLACES, PLACES, st.floats(width=32, allow_nan=False), st.uuids())
AT = SearchPlace(7, True, None, Place(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=7)))


def faults_of(pairs: list[tuple[str, str]]) -> list[str]:
    with pytest.raises(Invalid) as refused:
        parse_search_query(ANN, pairs)
    return [fault.field for fault in refused.value.faults]


def test_a_query_has_all_that_was_given() -> None:
    pairs = [("query", "a b"), ("prefix", "true"), ("status", "done"), ("status", "new"), ("kind", "k"), ("limit", "7")]
    assert parse_search_query(ANN, [*pairs, ("cursor", "c")]) == SearchQuery(
        "ann", "a b", True, (Status.DONE, Status.NEW), "k", 7, "c"
    )
    assert parse_search_query(ANN, [("query", "")]) == SearchQuery("ann", "")
    assert parse_search_query(User("root", Role.ADMIN), [("query", "")]).owner is None


@pytest.mark.parametrize(
    ("pairs", "fields"),
    [
        ([], ["query"]),
        ([("query", "a"), ("query", "b")], ["query"]),
        ([("query", "a" * 1001)], ["query"]),
        ([("query", "a\0b")], ["query"]),
        ([("query", "\udcff")], ["query"]),
        ([("query", "a"), ("prefix", "yes"), ("limit", "0"), ("status", "x"), ("owner", "b")],
         ["prefix", "limit", "status", "owner"]),
        ([("query", "a"), ("q", "b")], ["q"]),
    ],
)  # fmt: skip
def test_a_bad_query_names_its_parameters(pairs: list[tuple[str, str]], fields: list[str]) -> None:
    assert faults_of(pairs) == fields


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("отчёт", "отчёт"),
        ("a or отч", "отч"),
        ("resize  ima", "ima"),
        ("e-ma", "e-ma"),
        ('"a b" ima', "ima"),
        ("b2", "b2"),
        ("or", "or"),
        ('"a ima', None),
        ("-ima", None),
        ("a -ima", None),
        ('"ima"', None),
        ("ima ", None),
        ("a&b", None),
        ("_", None),
        ("", None),
    ],
)
def test_the_last_word_may_be_a_beginning_if_it_is_plain(text: str, word: str | None) -> None:
    found = last_word(text)
    assert found == (None if word is None else (word, text.removesuffix(word) + PLACEHOLDER, PLACEHOLDER))


def test_a_placeholder_is_none_of_the_words() -> None:
    word = PLACEHOLDER.upper()
    assert last_word(f"{word} ima") == ("ima", f"{word} {PLACEHOLDER}0", f"{PLACEHOLDER}0")


@given(before=st.integers(0, 2**32 - 1), more=st.booleans(), window=WINDOWS)
def test_a_cursor_in_a_window_is_read_as_it_was_written(before: int, more: bool, window: Window) -> None:
    place = SearchPlace(before, more, window, None)
    assert decode_search_cursor(QUERY, encode_search_cursor(QUERY, place)) == place


@given(before=st.integers(0, 2**32 - 1), older=PLACES)
def test_a_cursor_behind_a_window_is_read_as_it_was_written(before: int, older: Place) -> None:
    place = SearchPlace(before, False, None, older)
    assert decode_search_cursor(QUERY, encode_search_cursor(QUERY, place)) == place


@pytest.mark.parametrize(
    "other",
    [
        QUERY._replace(owner="ben"),
        QUERY._replace(text="other"),
        QUERY._replace(prefix=True),
        QUERY._replace(statuses=()),
        QUERY._replace(kind=None),
    ],
)
def test_a_cursor_of_another_search_is_refused(other: SearchQuery) -> None:
    with pytest.raises(Invalid, match="cursor: belongs to another search"):
        decode_search_cursor(other, encode_search_cursor(QUERY, AT))


def test_the_size_of_a_page_may_change_on_the_way() -> None:
    assert decode_search_cursor(QUERY._replace(limit=3), encode_search_cursor(QUERY, AT)) == AT


@given(st.text(max_size=130))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(Invalid, match="cursor: is not a cursor"):
        decode_search_cursor(QUERY, text)


def test_a_time_beyond_the_calendar_is_refused() -> None:
    text = encode_search_cursor(QUERY, AT)
    with pytest.raises(Invalid, match="cursor"):
        decode_search_cursor(QUERY, text[:50] + "f" * 12 + text[62:])


def test_a_page_as_json() -> None:
    task = make_task("ann")
    page = SearchPage((Found(task, 0.25, "<mark>a</mark>", "«b» & c"),), 3, exact=False, next_cursor="c")
    value = json.loads(encode_search_page(page))
    assert value["results"][0]["task"]["id"] == str(task.id)
    assert value["results"][0]["rank"] == 0.25
    assert value["results"][0]["highlights"] == {"title": "<mark>a</mark>", "description": "«b» & c"}
    assert {**value, "results": []} == {
        "results": [], "total": {"value": 3, "relation": "gte"}, "next_cursor": "c", "hint": None,
    }  # fmt: skip
    empty = json.loads(encode_search_page(SearchPage((), 0, hint="why")))
    assert empty == {"results": [], "total": {"value": 0, "relation": "eq"}, "next_cursor": None, "hint": "why"}


@pytest.mark.parametrize(
    ("original", "shown", "seen"),
    [
        ("Отчёт готов", "\x01Отчет\x02 готов", "<mark>Отчёт</mark> готов"),
        ("a <b> & c", "a  \x01b\x02  & c", "a &lt;<mark>b</mark>&gt; &amp; c"),
        ("<script>alert(1)</script>", " script alert(1) /script ", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("one two three four", "\x01one\x02 two\x03\x01four\x02", "<mark>one</mark> two … <mark>four</mark>"),
        ("one one", "\x01one\x02\x03\x01one\x02", "<mark>one</mark> … <mark>one</mark>"),
        ("\x01 mine \x02", "  \x01mine\x02  ", "\x01 <mark>mine</mark> \x02"),
        ("", "", ""),
        (f"ёж {'x' * 3000} ёлка и ёж", "еж  \x01елка\x02 и еж", "ёж  <mark>ёлка</mark> и ёж"),
        ("Отчёт", "\x01Отчет\x02", "<mark>Отчёт</mark>"),
        ("quite another", "text \x01of\x02 <it>", "text <mark>of</mark> &lt;it&gt;"),
    ],
)
def test_what_was_found_is_marked_in_the_text_as_it_was_written(original: str, shown: str, seen: str) -> None:
    assert marked(original, shown) == seen


@given(words=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.booleans()), max_size=8))
def test_nothing_but_marks_is_markup_and_the_text_is_whole(words: list[tuple[str, bool]]) -> None:
    original = "".join(text for text, _ in words)
    shown = "".join(START + search_text(text) + STOP if hit else search_text(text) for text, hit in words)
    seen = marked(original, shown)
    plain = re.sub("</?mark>", "", seen)
    assert not re.search("[<>]", plain)
    assert html.unescape(plain) == html.unescape(html.escape(normalize("NFC", original)))
    assert seen.count("<mark>") == seen.count("</mark>") == sum(hit for _, hit in words)


def test_parts_are_joined_where_text_was_left_out() -> None:
    assert BETWEEN not in marked("a b", f"a{BETWEEN}b")
    assert ELLIPSIS in marked("a b", f"a{BETWEEN}b")
