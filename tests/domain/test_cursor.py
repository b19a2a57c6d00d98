"""Opaque places: what was written is read, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.cursor import (
    LogCursor,
    decode_list_cursor,
    decode_log_cursor,
    encode_list_cursor,
    encode_log_cursor,
)
from taskd.domain.event import EventKey
from taskd.domain.model import ListQuery, Status
from taskd.errors import Invalid

TIMES = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
QUERY = ListQuery(owner="ann", statuses=(Status.NEW,), kind="echo")
PLACE = (datetime(2026, 1, 1, tzinfo=UTC), UUID(int=7))


@given(at=TIMES, number=st.integers(0, 2**128 - 1))
def test_a_list_cursor_is_read_as_it_was_written(at: datetime, number: int) -> None:
    place = (at, UUID(int=number))
    assert decode_list_cursor(QUERY, encode_list_cursor(QUERY, place)) == place


@pytest.mark.parametrize(
    "other",
    [
        QUERY._replace(owner="bob"),
        QUERY._replace(owner=None),
        QUERY._replace(statuses=()),
        QUERY._replace(kind=None),
        QUERY._replace(created_after=PLACE[0]),
        QUERY._replace(created_before=PLACE[0]),
        QUERY._replace(newest_first=False),
    ],
)
def test_a_cursor_of_another_list_is_refused(other: ListQuery) -> None:
    with pytest.raises(Invalid, match="cursor: belongs to a list with other filters"):
        decode_list_cursor(other, encode_list_cursor(QUERY, PLACE))


def test_the_size_of_a_page_may_change_on_the_way() -> None:
    assert decode_list_cursor(QUERY._replace(limit=7), encode_list_cursor(QUERY, PLACE)) == PLACE


def test_a_time_beyond_the_calendar_is_refused() -> None:
    text = encode_list_cursor(QUERY, PLACE)
    far = text[:11] + "f_____" + text[17:]
    with pytest.raises(Invalid, match="cursor"):
        decode_list_cursor(QUERY, far)


@given(epoch=st.binary(min_size=8, max_size=8), xid=st.integers(0, 2**63 - 1), seq=st.integers(0, 2**63 - 1))
def test_a_log_cursor_is_read_as_it_was_written(epoch: bytes, xid: int, seq: int) -> None:
    cursor = LogCursor(epoch, EventKey(xid, seq))
    assert decode_log_cursor(encode_log_cursor(cursor)) == cursor


@given(text=st.text(max_size=60))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(Invalid, match="after: is not a cursor"):
        decode_log_cursor(text)


@pytest.mark.parametrize("text", ["", "A" * 31, "A" * 33, "é" * 32, "!" * 32, "A" * 31 + "=", "A" * 31 + "\n"])
def test_what_looks_like_one_is_none_either(text: str) -> None:
    with pytest.raises(Invalid):
        decode_log_cursor(text)


def test_numbers_that_the_database_has_not_are_refused() -> None:
    text = encode_log_cursor(LogCursor(b"8 bytes!", EventKey(1 << 63, 1)))
    with pytest.raises(Invalid, match="Last-Event-ID"):
        decode_log_cursor(text, "Last-Event-ID")


def test_a_text_has_one_form_only() -> None:
    """The last character of unpadded base64 has bits that mean nothing; all but one value of them are refused."""
    text = encode_list_cursor(QUERY, PLACE)
    assert len(text) == 43
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    with pytest.raises(Invalid):
        decode_list_cursor(QUERY, other)
