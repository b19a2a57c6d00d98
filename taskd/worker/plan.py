"""What to do, decided without doing it: how many tasks to claim, when to look again, what becomes of an attempt."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from taskd.domain.model import Task
from taskd.domain.outcome import Ending, ending_of_failure, wait_before_retry
from taskd.domain.retry import Retry, RetryPolicy
from taskd.worker.registry import Handler
from taskd.worker.result import Ended, Failed, GivenBack, Returned, error_message, error_type

POLL = 5.0
"""Seconds after which the queue is looked at though nothing asked for it: a lost wake-up costs no more than this."""

RARELY = 30.0
"""Seconds after which a queue that was found empty is claimed from again, if nothing has woken the claim: every `POLL`
seconds one look at which kinds wait does, where there is any."""

MOST_CLAIMED = 500
"""Tasks claimed in one statement: workers elsewhere may have any number of free slots together, and tasks are large."""


class Stop(IntEnum):
    """Why an attempt is stopped before its handler ended; a higher one takes the place of a lower one."""

    RELEASE = 1  # the process ends: give the task back
    TIMEOUT = 2  # it took too long
    CANCEL = 3  # the user asked
    LOST = 4  # the lease is lost: the attempt is somebody else's to judge


class Limits(NamedTuple):
    """What holds for one attempt: the handler's values where it has them, else the task's own."""

    timeout: float
    max_attempts: int
    retry: RetryPolicy


def limits_of(task: Task, handler: Handler) -> Limits:
    """Return the limits of a task's attempts."""
    return Limits(
        timeout=task.timeout_seconds if handler.timeout is None else handler.timeout,
        max_attempts=task.max_attempts if handler.max_attempts is None else handler.max_attempts,
        retry=handler.retry,
    )


class Verdict(NamedTuple):
    """What becomes of an attempt; the fields are those of `Outcome`."""

    ending: Ending
    result_json: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    delay: float = 0.0


def judge(attempt: int, limits: Limits, stop: Stop | None, ended: Ended | None) -> Verdict | None:
    """Return what becomes of an attempt, or None when nothing is to be stored.

    Args:
        attempt: its number, from 1.
        limits: what holds for it.
        stop: why it was stopped, if it was.
        ended: what its handler did; None: it was not started, or did not end in the time it was given.
    """
    if stop is Stop.LOST:
        return None
    if stop is Stop.CANCEL:
        return Verdict(Ending.CANCELLED)
    if stop is Stop.TIMEOUT:
        return _failed(attempt, limits, "TimeoutError", f"the attempt took longer than {limits.timeout:g} seconds")
    if stop is Stop.RELEASE or ended is None or isinstance(ended, GivenBack):
        # Also when it returned: a function that sees `ctx.cancelled` and returns has not done its work.
        return Verdict(Ending.RELEASED)
    if isinstance(ended, Returned):
        return Verdict(Ending.DONE, result_json=ended.result_json)
    if isinstance(ended, Failed):
        if ended.final:
            return Verdict(Ending.FAILED, error_type=ended.type, error_message=ended.message)
        return _failed(attempt, limits, ended.type, ended.message, ended.after)
    error = ended.error
    # Of a class of the handler's own, whose constructor may not have called that of `Retry`.
    asked = getattr(error, "after", None) if isinstance(error, Retry) else None
    return _failed(attempt, limits, error_type(error), error_message(error), asked)


def _failed(attempt: int, limits: Limits, type_: str, message: str, asked: float | None = None) -> Verdict:
    ending = ending_of_failure(attempt, limits.max_attempts)
    delay = wait_before_retry(limits.retry, attempt, asked) if ending is Ending.RETRY else 0.0
    return Verdict(ending, error_type=type_, error_message=message, delay=delay)


def claimable(free: int, *, trusted: bool, draining: bool, kinds: int) -> int:
    """Return how many tasks to claim now: one for each free slot, up to a bound; none when they could not be kept."""
    return min(free, MOST_CLAIMED) if trusted and not draining and kinds else 0


def pause_after_promote(next_due: float | None) -> float:
    """Return the seconds until the next scheduled task may be due."""
    return POLL if next_due is None else min(POLL, next_due)
