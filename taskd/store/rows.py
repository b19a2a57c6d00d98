"""Rows of the views `task_rows` and `event_rows` as tasks and events."""

from __future__ import annotations

from typing import Any

from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.model import Failure, Status, Task
from taskd.store.pool import Row

TASK_COLUMNS = 25
"""How many columns `task_rows` has."""

EVENT_COLUMNS = 4
"""Columns that `event_rows` has before those of the task: xid, seq, type, at. Behind them it has `was`."""


# By their words: to look one up is cheaper than to ask an Enum.
_STATUSES = {status.value: status for status in Status}
_TYPES = {type_.value: type_ for type_ in EventType}


def task_of(row: Row, start: int = 0) -> Task:
    """Return the task in a row, whose columns from `start` on are those of `task_rows`."""
    values: tuple[Any, ...] = tuple(row)[start : start + TASK_COLUMNS]
    error_type, error_message, error_attempt, error_at = values[15:19]
    error = None if error_type is None else Failure(error_type, error_message, error_attempt, error_at)
    return Task.of((*values[:6], _STATUSES[values[6]], *values[7:15], error, *values[19:]))


def event_of(row: Row) -> Event:
    """Return the event in a row of `event_rows`."""
    xid, seq, type_, at = tuple(row)[:EVENT_COLUMNS]
    was = row[EVENT_COLUMNS + TASK_COLUMNS]
    return Event(EventKey(xid, seq), _TYPES[type_], task_of(row, EVENT_COLUMNS), at, _STATUSES[was] if was else None)
