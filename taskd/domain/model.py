"""What a task is: the record that every part of taskd hands around.

A `Task` is a value: it never changes, a change gives another one with a higher `version`. `payload` and `result`
are kept as the JSON text that the database holds, and are parsed only by who looks into them: most tasks pass
through the process without anybody reading their payload.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID


class Status(StrEnum):
    """Where a task is in its life; `domain.state` says how it moves."""

    SCHEDULED = "scheduled"
    NEW = "new"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES = {status.value: status for status in Status}
"""By their words: to look one up is cheaper than to ask the Enum."""

FINAL = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})
"""Statuses in which nothing happens any more unless a user asks for a retry."""


class Role(StrEnum):
    """What a user may do: own tasks, work only, metrics only, everything."""

    USER = "user"
    WORKER = "worker"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """Who calls. `name` is the owner of what they create.

    Args:
        trusted: taken at their word, where whoever reaches the server may make every call.
        token: names the token that they proved it with (its digest, never the token).
        authorization: what they proved it with, for a gateway, which passes it on.
    """

    name: str
    role: Role = Role.USER
    trusted: bool = False
    token: bytes | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)

    @property
    def sees_all(self) -> bool:
        """Whether other owners' tasks are visible to this user."""
        return self.role is Role.ADMIN


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: the error's type name, its message, the attempt, and when (database clock)."""

    type: str
    message: str
    attempt: int
    at: datetime


@dataclass(frozen=True)
class Task:
    """One task, at one version. The order of fields is the order of the columns of the view `task_rows`."""

    id: UUID
    owner: str
    kind: str
    title: str
    description: str
    payload_json: str
    status: Status
    priority: int
    run_at: datetime
    attempt: int
    max_attempts: int
    timeout_seconds: float
    progress: float | None
    progress_note: str | None
    result_json: str | None
    error: Failure | None
    version: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None

    @classmethod
    def of(cls, values: Iterable[Any]) -> Task:
        """Return the task that a row of `task_rows` has: the status as its word, an error as type, message, attempt and
        time (all None: there is none), and all else in the order of the fields.

        The constructor takes several times as long, as it has to in a frozen class.
        """
        task = object.__new__(cls)
        known = task.__dict__
        (
            known["id"], known["owner"], known["kind"], known["title"], known["description"], known["payload_json"],
            status, known["priority"], known["run_at"], known["attempt"], known["max_attempts"],
            known["timeout_seconds"], known["progress"], known["progress_note"], known["result_json"],
            error_type, error_message, error_attempt, error_at, known["version"], known["created_at"],
            known["updated_at"], known["started_at"], known["finished_at"], known["cancel_requested_at"],
        ) = values  # fmt: skip
        known["status"] = STATUSES[status]
        known["error"] = None if error_type is None else Failure(error_type, error_message, error_attempt, error_at)
        return task

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The handler's input. Parsed at the first look; don't change it."""
        value: dict[str, Any] = json.loads(self.payload_json)
        return value

    @cached_property
    def result(self) -> Any:
        """What the handler returned, or None."""
        return None if self.result_json is None else json.loads(self.result_json)

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to it any more by itself."""
        return self.status in FINAL


class NewTask(NamedTuple):
    """What a caller asks to be created; made by `domain.forms` only, so its values are within their limits.

    `run_at` None means at once. `timeout_seconds` and `max_attempts` None mean the handler's own default, or the
    service's.
    """

    title: str
    kind: str = "default"
    description: str = ""
    payload_json: str = "{}"
    priority: int = 0
    run_at: datetime | None = None
    max_attempts: int = 5
    timeout_seconds: float = 300.0


class ListQuery(NamedTuple):
    """Which tasks to list. `owner` None: all owners (only for who sees all).

    `cursor` is the `next_cursor` of the page before.
    """

    owner: str | None
    statuses: tuple[Status, ...] = ()
    kind: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    limit: int = 50
    newest_first: bool = True
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_cursor` is where the next one begins, None at the end."""

    tasks: tuple[Task, ...]
    next_cursor: str | None
