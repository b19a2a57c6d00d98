"""The life of a task, as a table.

    scheduled ──► new ──► running ──► done
        ▲  │       │ │        ├─────► failed
        │  │       │ │        ├─────► cancelled
        │  └───┐   │ └────────┼─────► (delayed) scheduled
        │      ▼   ▼          │
        │     cancelled       │
        └─────────────────────┘ retry, rescue, give-back

        failed | cancelled ──► new        by a user's retry

Nothing else exists. What changes a status asks `next_status` first, or is a statement in `store/sql` whose guard
repeats one line of `TRANSITIONS`; a test compares the two. `DELAY` is what a patch of `run_at` into the future does
to a ready task: "new" means ready, so it can't stay new.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from taskd.domain.model import Status
from taskd.errors import Conflict


class Change(StrEnum):
    """What may be done to a task's status."""

    PROMOTE = "promote"
    DELAY = "delay"
    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY_LATER = "retry later"
    GIVE_BACK = "give back"
    STOP = "stop"
    CANCEL = "cancel"
    RERUN = "retry"


TRANSITIONS: Mapping[Change, Mapping[Status, Status]] = {
    Change.PROMOTE: {Status.SCHEDULED: Status.NEW},
    Change.DELAY: {Status.NEW: Status.SCHEDULED, Status.SCHEDULED: Status.SCHEDULED},
    Change.CLAIM: {Status.NEW: Status.RUNNING},
    Change.SUCCEED: {Status.RUNNING: Status.DONE},
    Change.FAIL: {Status.RUNNING: Status.FAILED},
    Change.RETRY_LATER: {Status.RUNNING: Status.SCHEDULED},
    Change.GIVE_BACK: {Status.RUNNING: Status.SCHEDULED},
    Change.STOP: {Status.RUNNING: Status.CANCELLED},
    # A running task stays running, with `cancel_requested_at`, until its handler has stopped.
    Change.CANCEL: {
        Status.NEW: Status.CANCELLED,
        Status.SCHEDULED: Status.CANCELLED,
        Status.RUNNING: Status.RUNNING,
        Status.CANCELLED: Status.CANCELLED,
    },
    Change.RERUN: {Status.FAILED: Status.NEW, Status.CANCELLED: Status.NEW},
}

DELETABLE = frozenset(Status) - {Status.RUNNING}
"""A running task is cancelled first, then deleted."""

RESCHEDULABLE = frozenset({Status.NEW, Status.SCHEDULED})
"""Where `payload priority run_at max_attempts timeout_seconds` may still be changed."""


def next_status(status: Status, change: Change) -> Status:
    """Return the status that `change` leads to.

    Raises:
        Conflict: the change is not possible in this status; the message names both.
    """
    try:
        return TRANSITIONS[change][status]
    except KeyError:
        raise Conflict(f"a task that is {status.value} has no {change.value}") from None
