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


def task_of(row: Row, start: int = 0) -> Task:
    """Return the task in a row, whose columns from `start` on are those of `task_rows`."""
    values: tuple[Any, ...] = tuple(row)[start : start + TASK_COLUMNS]
    error_type, error_message, error_attempt, error_at = values[15:19]
    error = None if error_type is None else Failure(error_type, error_message, error_attempt, error_at)
    fields = (*values[:6], Status(values[6]), *values[7:15], error, *values[19:])
    return Task(*fields)


def event_of(row: Row) -> Event:
    """Return the event in a row of `event_rows`."""
    xid, seq, type_, at = tuple(row)[:EVENT_COLUMNS]
    was = row[EVENT_COLUMNS + TASK_COLUMNS]
    return Event(EventKey(xid, seq), EventType(type_), task_of(row, EVENT_COLUMNS), at, Status(was) if was else None)
