"""What happened to a task: one row of the event log.

The log has one order that all readers share: the key `(xid, seq)`. See `store/events.py` for why it is safe to
read it in that order while transactions are still open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from sys import getsizeof
from typing import NamedTuple

from taskd.domain.codec import encode_event
from taskd.domain.model import Status, Task


class EventType(StrEnum):
    """What a client is told of a change."""

    CREATED = "created"
    UPDATED = "updated"
    STARTED = "started"
    PROGRESS = "progress"
    RETRYING = "retrying"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class EventKey(NamedTuple):
    """A place in the log. Compares as the log is ordered."""

    xid: int
    seq: int


LOG_START = EventKey(0, 0)
"""Before the first event that can be."""


OVERHEAD = 1000
"""Bytes of an event beside its texts."""


@dataclass(frozen=True)
class Event:
    """One change of one task; `task` is as the change left it.

    `was` is the status before the change: None of a task that was created, and of an event that does not tell.
    """

    key: EventKey
    type: EventType
    task: Task
    at: datetime
    was: Status | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes: its texts, and so much for all else. Nothing is encoded for that.

        Of a text the bytes, and not the characters, which take up to four each.
        """
        task = self.task
        error = None if task.error is None else task.error.message
        texts = (task.payload_json, task.result_json, task.description, task.title, task.progress_note, error)
        return OVERHEAD + sum(map(getsizeof, filter(None, texts)))

    @cached_property
    def json(self) -> bytes:
        """`{"type", "task", "at"}`, encoded once for all who are told."""
        return encode_event(self.type.value, self.task, self.at)
