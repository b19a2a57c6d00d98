"""Rows of the views `task_rows` and `event_rows` as tasks and events."""

from __future__ import annotations

from typing import Any

from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.model import STATUSES, Task
from taskd.store.pool import Row

TASK_COLUMNS = 25
"""How many columns `task_rows` has."""

EVENT_COLUMNS = 4
"""Columns that `event_rows` has before those of the task: xid, seq, type, at. Behind them it has `was`."""

_TYPES = {type_.value: type_ for type_ in EventType}


def task_of(row: Row, start: int = 0) -> Task:
    """Return the task in a row, whose columns from `start` on are those of `task_rows`."""
    return Task.of(row[start : start + TASK_COLUMNS])


def event_of(row: Row) -> Event:
    """Return the event in a row of `event_rows`."""
    values: tuple[Any, ...] = tuple(row)
    task = Task.of(values[EVENT_COLUMNS : EVENT_COLUMNS + TASK_COLUMNS])
    return _event(values, task, values[EVENT_COLUMNS + TASK_COLUMNS])


def bare_event_of(row: Row) -> Event:
    """Return the event in a row of `events.read_bare`; of its task, what that does not have is empty."""
    values: tuple[Any, ...] = tuple(row)
    task_id, kind, status, priority, run_at, attempt, version, started_at = values[4:12]
    error_type, error_at, cancel_requested_at, was = values[12:16]
    at = values[3]
    task = Task.of(
        (
            task_id, "", kind, "", "", "{}", status, priority, run_at, attempt, 0, 0.0,
            None, None, None, error_type, "", 0, error_at, version, at, at, started_at, None, cancel_requested_at,
        )
    )  # fmt: skip
    return _event(values, task, was)


def _event(values: tuple[Any, ...], task: Task, was: str | None) -> Event:
    event = object.__new__(Event)
    known = event.__dict__
    known["key"], known["type"], known["at"] = EventKey(*values[:2]), _TYPES[values[2]], values[3]
    known["task"] = task
    known["was"] = STATUSES[was] if was else None
    return event
