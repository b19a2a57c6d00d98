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

_TASK_FIELDS = tuple(field.name for field in fields(Task))
_EVENT_FIELDS = tuple(field.name for field in fields(Event))
_STATUSES = {status.value: status for status in Status}
_TYPES = {type_.value: type_ for type_ in EventType}


def task_of(row: Row, start: int = 0) -> Task:
    """Return the task in a row, whose columns from `start` on are those of `task_rows`."""
    return _task(tuple(row)[start : start + TASK_COLUMNS])


def event_of(row: Row) -> Event:
    """Return the event in a row of `event_rows`."""
    values: tuple[Any, ...] = tuple(row)
    xid, seq, type_, at = values[:EVENT_COLUMNS]
    was = values[EVENT_COLUMNS + TASK_COLUMNS]
    task = _task(values[EVENT_COLUMNS : EVENT_COLUMNS + TASK_COLUMNS])
    event = object.__new__(Event)
    known = (EventKey(xid, seq), _TYPES[type_], task, at, _STATUSES[was] if was else None)
    event.__dict__.update(zip(_EVENT_FIELDS, known, strict=True))
    return event


def _task(values: tuple[Any, ...]) -> Task:
    error_type, error_message, error_attempt, error_at = values[15:19]
    error = None if error_type is None else Failure(error_type, error_message, error_attempt, error_at)
    # Past `__init__`: a frozen dataclass sets each field by a call of its own, which is most of what a row costs.
    task = object.__new__(Task)
    known = (*values[:6], _STATUSES[values[6]], *values[7:15], error, *values[19:])
    task.__dict__.update(zip(_TASK_FIELDS, known, strict=True))
    return task
