"""How an attempt ended, decided by the worker and applied by the store in one statement."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from taskd.domain.retry import RetryPolicy


class Ending(StrEnum):
    """What becomes of the task."""

    DONE = "done"
    FAILED = "failed"
    RETRY = "retry"
    CANCELLED = "cancelled"
    RELEASED = "released"


class Outcome(NamedTuple):
    """The end of attempt `attempt` of a task, under the lease that claimed it.

    A store applies it only if that attempt still belongs to that lease. `delay` (seconds) is for `RETRY`;
    `RELEASED` gives the task back at once without spending the attempt.
    """

    task_id: UUID
    attempt: int
    lease: UUID
    ending: Ending
    result_json: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    delay: float = 0.0


class Report(NamedTuple):
    """What a handler says of its progress: 0 to 1, and a note."""

    task_id: UUID
    attempt: int
    lease: UUID
    progress: float
    note: str | None


def ending_of_failure(attempt: int, max_attempts: int) -> Ending:
    """Return whether a failed attempt is followed by another."""
    return Ending.RETRY if attempt < max_attempts else Ending.FAILED


def wait_before_retry(policy: RetryPolicy, attempt: int, asked: float | None) -> float:
    """Return the seconds to wait after a failed attempt; what the handler asked for wins."""
    return policy.delay(attempt) if asked is None else asked
