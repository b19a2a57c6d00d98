"""Tasks and events as messages, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.codec import MAX_DEPTH, encode_task
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.fields import Time
from taskd.domain.forms import parse_new_task, parse_patch
from taskd.domain.model import Failure, NewTask, Status, Task
from taskd.errors import Invalid
from taskd.rpc.messages import (
    STATUS,
    STATUS_OF,
    TYPE,
    TYPE_OF,
    duration,
    event_message,
    event_of,
    new_task_body,
    new_task_message,
    patch_body,
    seconds_of,
    status_texts,
    task_message,
    task_of,
    time_of,
    time_text,
    timestamp,
)
from taskd.v1 import taskd_pb2 as pb

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
# All but the first and the last moment, which are infinities to the database and refused.
TIMES = st.datetimes(
    datetime(1, 1, 1, microsecond=1), datetime(9999, 12, 31, 23, 59, 59, 999998), timezones=st.just(UTC)
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=3))
JSON_TEXTS = JSON.map(lambda value: json.dumps(value, ensure_ascii=False))
OBJECT_TEXTS = st.dictionaries(TEXTS, JSON, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))
SMALL = st.integers(0, 2**31 - 1)
TASKS = st.builds(
    Task,
    id=st.uuids(), owner=TEXTS, kind=TEXTS, title=TEXTS, description=TEXTS, payload_json=OBJECT_TEXTS,
    status=st.sampled_from(Status), priority=st.integers(-100, 100), run_at=TIMES, attempt=SMALL, max_attempts=SMALL,
    timeout_seconds=st.floats(0, 1e9), progress=st.none() | st.floats(0, 1), progress_note=st.none() | TEXTS,
    result_json=st.none() | JSON_TEXTS, error=st.none() | st.builds(Failure, TEXTS, TEXTS, SMALL, TIMES),
    version=st.integers(0, 2**63 - 1), created_at=TIMES, updated_at=TIMES, started_at=st.none() | TIMES,
    finished_at=st.none() | TIMES, cancel_requested_at=st.none() | TIMES,
)  # fmt: skip
KEYS = st.builds(EventKey, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
DRAFTS = st.builds(
    NewTask,
    title=TEXTS.filter(bool), kind=st.from_regex("[a-z0-9_.-]{1,64}", fullmatch=True), description=TEXTS,
    payload_json=st.just('{"a":[1,2.5,"ё"]}'), priority=st.integers(-100, 100), run_at=st.none() | TIMES,
    max_attempts=st.integers(1, 100), timeout_seconds=st.floats(0.001, 31_536_000),
)  # fmt: skip


@given(TASKS)
def test_a_task_comes_back_as_it_was(task: Task) -> None:
    again = task_of(pb.Task.FromString(task_message(task).SerializeToString()))
    assert again == task
    assert encode_task(again) == encode_task(task)


@given(TASKS, KEYS, st.sampled_from(EventType), TIMES, st.none() | st.sampled_from(Status))
def test_an_event_comes_back_as_it_was(
    task: Task, key: EventKey, type_: EventType, at: datetime, was: Status | None
) -> None:
    event = Event(key, type_, task, at, was)
    message = event_message(event, encode_log_cursor(LogCursor(b"8 bytes!", key)))
    again = event_of(pb.TaskEvent.FromString(message.SerializeToString()))
    assert again == event
    assert again.was == was


@given(DRAFTS)
def test_a_new_task_means_the_same_to_the_checks(draft: NewTask) -> None:
    again = parse_new_task(new_task_body(pb.NewTask.FromString(new_task_message(draft).SerializeToString())))
    assert again == draft


@given(TIMES)
def test_a_time_is_exact(at: datetime) -> None:
    assert time_of(timestamp(at)) == at
    assert Time().read(time_text(timestamp(at))) == at


@given(st.floats(0, 1e9))
def test_a_span_is_good_to_a_nanosecond(seconds: float) -> None:
    message = duration(seconds)
    assert abs(seconds_of(message) - seconds) <= 1e-9 + seconds * 1e-15
    assert 0 <= message.nanos < 10**9


def test_each_value_has_a_number_and_each_number_but_zero_a_value() -> None:
    statuses, types = (pb.DESCRIPTOR.enum_types_by_name[name] for name in ("TaskStatus", "TaskEventType"))
    assert set(STATUS) == set(Status)
    assert set(STATUS_OF) | {0} == set(statuses.values_by_number)
    assert set(TYPE) == set(EventType)
    assert set(TYPE_OF) | {0} == set(types.values_by_number)


def faults_of(message: pb.NewTask) -> list[str]:
    try:
        parse_new_task(new_task_body(message))
    except Invalid as error:
        return [fault.field for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "run_at",
            [
                Timestamp(seconds=2**62),
                Timestamp(seconds=-(2**62)),
                Timestamp(nanos=10**9),
                Timestamp(nanos=-1),
                Timestamp(seconds=253_402_300_800),
            ],
        ),
        ("payload", ["", "[]", "{", '{"a":1}x', '{"a":NaN}', "[" * 10_000, '{"a":' * (MAX_DEPTH + 1), '{"":1,"":2}']),
        ("priority", [101, -101, 2**31 - 1]),
        ("max_attempts", [0, 101, -1]),
        ("timeout_seconds", [0, -1, float("nan"), float("inf")]),
        ("kind", ["", "A", "x" * 65]),
        ("title", ["", "x" * 201, "a\0b"]),
    ],
)
def test_what_no_field_takes_is_refused_by_its_name(field: str, values: list[Any]) -> None:
    for value in values:
        assert faults_of(pb.NewTask(**{"title": "t", field: value})) == [field], value


def test_a_field_that_is_not_set_has_its_default() -> None:
    assert parse_new_task(new_task_body(pb.NewTask(title="t"))) == NewTask("t")


def test_without_a_mask_what_is_set_is_changed() -> None:
    patch = parse_patch(patch_body(pb.TaskPatch(title="t", priority=0, payload='{"a":null}')))
    assert patch.fields == {"title": "t", "priority": 0, "payload": {"a": None}}


def test_with_a_mask_what_it_names_is_changed_and_what_it_does_not_is_not() -> None:
    patch = parse_patch(patch_body(pb.TaskPatch(title="t", priority=7), ["priority", "description"]))
    assert patch.fields.keys() == {"priority", "description"}
    with pytest.raises(Invalid) as caught:
        parse_patch(patch_body(pb.TaskPatch(), ["title", "owner"]))
    assert {fault.field for fault in caught.value.faults} == {"title", "owner"}


def test_a_number_that_is_no_status_gives_no_status() -> None:
    known, *unknown = status_texts([pb.TASK_STATUS_NEW, 0, 99, -1])
    assert known == "new"
    assert not {*unknown} & {status.value for status in Status}
