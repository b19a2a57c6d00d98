"""The youngest part of the log, held without a gap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.model import Failure, Status, Task
from taskd.service.feed import Ring

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = Task(
    UUID(int=7), "ann", "echo", "t", "", "{}", Status.NEW, 0, NOW, 0, 5, 300.0, None, None, None, None, 1, NOW, NOW,
    None, None, None,
)  # fmt: skip


def event(xid: int, seq: int, title: str = "t") -> Event:
    return Event(EventKey(xid, seq), EventType.UPDATED, replace(TASK, title=title), NOW)


EVENTS = [event(n // 3, n) for n in range(1, 31)]


@given(limit=st.integers(1, 40), start=st.integers(0, 30), count=st.integers(1, 40))
def test_what_it_reads_is_what_the_log_would_have_read(limit: int, start: int, count: int) -> None:
    ring = Ring(LOG_START, events=limit)
    ring.extend(EVENTS)
    after = EVENTS[start - 1].key if start else LOG_START
    found = ring.read(after, count)
    if limit < 30 - start:
        assert found is None
    else:
        assert found == EVENTS[start : start + count]


def test_it_is_bounded_by_the_bytes_of_what_is_sent() -> None:
    ring = Ring(LOG_START, size=20_000)
    ring.extend([event(1, n, title="x" * 5_000) for n in range(1, 10)])
    assert ring.read(EventKey(1, 6), 100) == [event(1, n, title="x" * 5_000) for n in (7, 8, 9)]
    assert ring.read(EventKey(1, 5), 100) is None


def test_texts_count_by_their_bytes_and_so_does_an_error() -> None:
    ring = Ring(LOG_START, size=20_000)
    error = Failure("E", "\N{SNOWFLAKE}" * 2_500, 1, NOW)
    ring.extend([replace(one, task=replace(TASK, error=error)) for one in (event(1, n) for n in range(1, 10))])
    assert ring.start == EventKey(1, 6)
    ring.extend([event(2, n, title="\N{SNOWMAN}" * 2_500) for n in range(1, 10)])
    assert ring.start == EventKey(2, 6)


def test_an_event_greater_than_the_whole_ring_leaves_it_empty_and_true() -> None:
    ring = Ring(LOG_START, size=100)
    ring.extend([event(1, 1)])
    assert ring.read(LOG_START, 10) is None
    assert ring.read(EventKey(1, 1), 10) == []
