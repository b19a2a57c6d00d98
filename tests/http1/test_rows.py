"""The table of hostile requests, and of good ones beside them: whole, byte by byte, in two, and with a tail."""

from __future__ import annotations

from collections import Counter

import pytest

from taskd.http1.limits import Limits
from tests.http1.reading import SMALL, Told, in_all_ways, read
from tests.http1.rows import chunks, connection, fields, framing, limits, request_line
from tests.http1.rows.row import GET, Row

THEMES = (request_line, fields, framing, chunks, limits, connection)
ROWS = [
    pytest.param(row, id=f"{theme.__name__.rpartition('.')[2]}: {row.name}") for theme in THEMES for row in theme.ROWS
]
GOOD = [row for row in ROWS if isinstance(row.values[0], Row) and row.values[0].status is None]
TAIL = GET.replace(b" / ", b" /tail ") + b"\r\n"


def check(row: Row, told: Told, more: tuple[bytes, ...] = ()) -> None:
    """See that what was read is what the row says, and the targets of `more` behind it."""
    whole = [request for request in told.requests if request.whole]
    found = [(request.head.method, request.head.target, request.body) for request in whole]
    assert found == [*row.wanted, *(("GET", target, b"") for target in more)]
    # A refusal comes within a request or before it, so at most one is left over, and only then.
    assert len(told.requests) - len(whole) <= (row.status is not None)
    assert (told.status, told.closed) == (row.status, row.closed)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_read_as_it_says(row: Row) -> None:
    told = in_all_ways(row.raw)
    check(row, told)
    if row.fields is not None:
        assert told.requests[0].head.headers == ((b"host", b"a"), *row.fields)


@pytest.mark.parametrize("row", ROWS)
def test_what_follows_a_row_is_the_next_request_or_nothing(row: Row) -> None:
    goes_on = row.status is None and not row.closed
    check(row, in_all_ways(row.raw + TAIL), (b"/tail",) if goes_on else ())
    # Also when it comes late.
    check(row, read(row.raw, TAIL, TAIL), (b"/tail", b"/tail") if goes_on else ())


@pytest.mark.parametrize("row", ROWS)
def test_the_end_behind_a_row_changes_nothing(row: Row) -> None:
    told = read(row.raw, eof=True)
    assert (told.requests, told.status) == (read(row.raw).requests, row.status)
    assert told.closed is (row.status is None)


@pytest.mark.parametrize("row", GOOD)
def test_the_end_within_a_row_is_a_fault(row: Row) -> None:
    count, last = 0, 0  # of whole requests, and where the last one ended
    for cut in range(1, len(row.raw)):
        before, told = read(row.raw[:cut]), read(row.raw[:cut], eof=True)
        assert told.requests == before.requests
        if sum(request.whole for request in before.requests) > count:
            count, last = count + 1, cut
        # Between requests there may be an empty line, or half of one.
        rests = before.closed or row.raw[last:cut] in (b"", b"\r", b"\r\n")
        assert (told.status, told.closed) == ((None, True) if rests else (400, False)), cut


def test_the_bounds_are_those_of_the_settings() -> None:
    default = Limits()
    assert (default.head, default.fields, default.target, default.body) == (16 * 1024, 100, 8 * 1024, 1024 * 1024)
    for size, status in ((default.head, None), (default.head + 1, 431)):
        raw = GET + b"A: " + b"b" * (size - len(GET) - 7) + b"\r\n\r\n"
        assert read(raw, limits=default).status == status
    for size, status in ((default.target, None), (default.target + 1, 414)):
        raw = GET.replace(b" / ", b" /" + b"x" * (size - 1) + b" ") + b"\r\n"
        assert read(raw, limits=default).status == status
    for size, status in ((default.body, None), (default.body + 1, 413)):
        assert read(GET + b"Content-Length: %d\r\n\r\n" % size, limits=default).status == status
    for count, status in ((default.fields, None), (default.fields + 1, 431)):
        assert read(GET + b"A: b\r\n" * (count - 1) + b"\r\n", limits=default).status == status


def test_no_row_is_there_twice() -> None:
    rows = [row for theme in THEMES for row in theme.ROWS]
    assert len(rows) >= 200
    assert not [raw for raw, count in Counter(row.raw for row in rows).items() if count > 1]
    assert not [name for name, count in Counter(row.id for row in ROWS).items() if count > 1]
    assert all(row.raw and len(row.raw) <= 3 * SMALL.head for row in rows)
