"""Rows of the views `task_rows` and `event_rows` as tasks and events."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.model import Failure, Status, Task
from taskd.store.pool import Row

TASK_COLUMNS = 25
"""How many columns `task_rows` has."""

EVENT_COLUMNS = 4
"""Columns that `event_rows` has before those of the task: xid, seq, type, at. Behind them it has `was`."""

_BARE: dict[str, Any] = dict.fromkeys(field.name for field in fields(Task)) | {
    "owner": "", "title": "", "description": "", "payload_json": "{}", "max_attempts": 0, "timeout_seconds": 0.0,
}  # fmt: skip
# By their words: to look one up is cheaper than to ask an Enum.
_STATUSES = {status.value: status for status in Status}
_TYPES = {type_.value: type_ for type_ in EventType}


def task_of(row: Row, start: int = 0) -> Task:
    """Return the task in a row, whose columns from `start` on are those of `task_rows`."""
    return _task(tuple(row)[start : start + TASK_COLUMNS])


def event_of(row: Row) -> Event:
    """Return the event in a row of `event_rows`."""
    values: tuple[Any, ...] = tuple(row)
    task = _task(values[EVENT_COLUMNS : EVENT_COLUMNS + TASK_COLUMNS])
    return _event(values, task, values[EVENT_COLUMNS + TASK_COLUMNS])


def bare_event_of(row: Row) -> Event:
    """Return the event in a row of `events.read_bare`; of its task, what that does not have is empty."""
    values: tuple[Any, ...] = tuple(row)
    error_type, error_at, cancel_requested_at, was = values[12:16]
    task = object.__new__(Task)
    known = task.__dict__
    known.update(_BARE)
    known["id"], known["kind"], known["status"] = values[4], values[5], _STATUSES[values[6]]
    known["priority"], known["run_at"], known["attempt"], known["version"], known["started_at"] = values[7:12]
    known["created_at"] = known["updated_at"] = values[3]
    known["cancel_requested_at"] = cancel_requested_at
    if error_type is not None:
        known["error"] = Failure(error_type, "", 0, error_at)
    return _event(values, task, was)


def _event(values: tuple[Any, ...], task: Task, was: str | None) -> Event:
    event = object.__new__(Event)
    known = event.__dict__
    known["key"], known["type"], known["at"] = EventKey(*values[:2]), _TYPES[values[2]], values[3]
    known["task"] = task
    known["was"] = _STATUSES[was] if was else None
    return event


def _task(values: tuple[Any, ...]) -> Task:
    error_type, error_message, error_attempt, error_at = values[15:19]
    error = None if error_type is None else Failure(error_type, error_message, error_attempt, error_at)
    return Task.of((*values[:6], _STATUSES[values[6]], *values[7:15], error, *values[19:]))
