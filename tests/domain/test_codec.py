"""JSON: what goes out comes back, and what comes in is read so that its fault can be named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.codec import (
    TOO_BIG,
    Repeated,
    decode_task,
    dump_json,
    encode_event,
    encode_task,
    encode_tasks,
    format_time,
    parse_time,
    read_json,
)
from taskd.domain.model import Failure, Status, Task
from taskd.errors import Invalid, Malformed

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TASK = Task(
    id=UUID("0198c0c0-0000-7000-8000-000000000000"), owner="ann", kind="echo", title="Отчёт \"1\"\n", description="",
    payload_json='{"a":1}', status=Status.NEW, priority=-3, run_at=NOW, attempt=0, max_attempts=5,
    timeout_seconds=300.0, progress=None, progress_note=None, result_json=None, error=None, version=1,
    created_at=NOW, updated_at=NOW, started_at=None, finished_at=None, cancel_requested_at=None,
)  # fmt: skip

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
TIMES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
    lambda at: 1 < at.year < 9999
)
TASKS = st.builds(
    Task,
    id=st.uuids(), owner=TEXTS, kind=st.just("echo"), title=TEXTS, description=TEXTS,
    payload_json=st.dictionaries(TEXTS, st.integers()).map(dump_json), status=st.sampled_from(Status),
    priority=st.integers(-100, 100), run_at=TIMES, attempt=st.integers(0, 100), max_attempts=st.integers(1, 100),
    timeout_seconds=st.floats(0.001, 1e6), progress=st.none() | st.floats(0, 1), progress_note=st.none() | TEXTS,
    result_json=st.none() | st.lists(st.integers()).map(dump_json),
    error=st.none() | st.builds(Failure, TEXTS, TEXTS, st.integers(1, 9), TIMES), version=st.integers(1, 2**62),
    created_at=TIMES, updated_at=TIMES, started_at=st.none() | TIMES, finished_at=st.none() | TIMES,
    cancel_requested_at=st.none() | TIMES,
)  # fmt: skip


@given(task=TASKS)
def test_a_task_comes_back_as_it_was(task: Task) -> None:
    assert decode_task(json.loads(encode_task(task))) == task


@given(tasks=st.lists(TASKS, max_size=3))
def test_tasks_are_a_json_list(tasks: list[Task]) -> None:
    assert [decode_task(value) for value in json.loads(encode_tasks(tasks))] == tasks


def test_payload_and_result_go_out_as_they_are_stored() -> None:
    task = replace(TASK, payload_json='{"n": 1.50}', result_json="1e3")
    assert b'"payload":{"n": 1.50},' in encode_task(task)
    assert b'"result":1e3,' in encode_task(task)


def test_an_event_has_its_type_its_task_and_its_time() -> None:
    value = json.loads(encode_event("created", TASK, NOW))
    assert list(value) == ["type", "task", "at"]
    assert value["task"] == json.loads(encode_task(TASK))
    assert value["at"] == "2026-01-02T03:04:05.678901Z"


def test_whole_numbers_have_no_fraction_and_others_all_of_theirs() -> None:
    value = encode_task(replace(TASK, timeout_seconds=0.1, progress=1.0))
    assert b'"timeout_seconds":0.1,' in value
    assert b'"progress":1,' in value


@given(at=TIMES)
def test_times_are_utc_with_microseconds(at: datetime) -> None:
    text = format_time(at)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-02T03:04:05.678901Z")
    assert parse_time(text) == at


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {"a": {1, 2}}])
def test_what_has_no_form_in_json_is_not_dumped(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        dump_json(value)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"a": 1,\n"b" 2}', "line 2, column 5"),
        (b"{} {}", "line 1, column 4"),
        (b"[1 2]", "line 1, column 4"),
        (b"\xff", "line 1, column 1"),
        (b'"a\nb"', "line 1, column 3"),
    ],
)
def test_what_is_no_json_is_malformed_and_told_where(body: bytes, place: str) -> None:
    with pytest.raises(Malformed, match=place):
        read_json(body)


def test_a_byte_order_mark_is_malformed() -> None:
    with pytest.raises(Malformed, match="byte order mark"):
        read_json(b"\xef\xbb\xbf{}")


def test_bytes_that_are_no_utf_8_are_left_for_the_field_to_refuse() -> None:
    assert read_json(b'{"a": "\xff"}') == {"a": "\udcff"}


@pytest.mark.parametrize(
    ("digits", "value"), [("9" * 20, 10**20 - 1), ("9" * 5000, TOO_BIG), ("-" + "9" * 5000, -TOO_BIG)]
)
def test_integers_of_any_length_are_read(digits: str, value: int) -> None:
    assert read_json(digits.encode()) == value


def test_a_key_given_twice_is_remembered() -> None:
    value = read_json(b'{"a": 1, "b": 2, "b": 3}')
    assert isinstance(value, Repeated)
    assert value.key == "b"
    assert value == {"a": 1, "b": 3}


DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (DEEP, "body"),
        (b'{"payload": ' + DEEP + b"}", "payload"),
        (b'{"title": "x", "description": "[{", "payload": {"a": ' + DEEP + b"}}", "payload"),
        (b'{"tasks": [{"title": "a"}, {"title": "b", "payload": {"x": [1, ' + DEEP + b"]}}]}", "tasks[1].payload"),
        (b'{"tasks": ' + DEEP + b"}", "tasks[0]"),
        (b'{"a\\"b": ' + DEEP + b"}", 'a"b'),
    ],
)
def test_nesting_without_end_names_the_field(body: bytes, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_json(body)
    assert [fault.field for fault in refused.value.faults] == [field]


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    )
)
def test_what_is_dumped_is_read(value: object) -> None:
    assert read_json(dump_json(value).encode()) == value
