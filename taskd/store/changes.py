"""What a user's change makes of a task: decided here, without a database, on the row that is locked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from taskd.domain.event import EventType
from taskd.domain.forms import TaskPatch, merge_payload
from taskd.domain.model import Status, Task
from taskd.domain.state import DELETABLE, RESCHEDULABLE, Change, next_status
from taskd.errors import Conflict, StaleVersion


def check_version(task: Task, if_match: Collection[int] | None) -> None:
    """Refuse a change that was meant for another version.

    Raises:
        StaleVersion: the task's version is not in `if_match`.
    """
    if if_match is not None and task.version not in if_match:
        raise StaleVersion(f"the task's version is {task.version}")


def check_deletable(task: Task) -> None:
    """Refuse to delete a task that runs.

    Raises:
        Conflict: it runs.
    """
    if task.status not in DELETABLE:
        raise Conflict("a running task can't be deleted: cancel it first")


def patched(task: Task, patch: TaskPatch, now: datetime) -> Task:
    """Return the task with a patch's fields; the very same object when nothing changes.

    Raises:
        Conflict: the patch is not of title and description only, and the task no longer waits.
        Invalid: the merged payload is too large.
    """
    if patch.scheduling and task.status not in RESCHEDULABLE:
        names = ", ".join(sorted(patch.scheduling))
        raise Conflict(f"a task that is {task.status.value} has no change of {names}")
    fields = dict(patch.fields)
    if "timeout_seconds" in fields:
        fields["timeout_seconds"] = float(fields["timeout_seconds"])
    if "payload" in fields:
        fields["payload_json"] = merge_payload(task.payload_json, fields.pop("payload"))
    if "run_at" in fields:
        fields["run_at"] = fields["run_at"] or now
        fields["status"] = _status_at(task, fields["run_at"], now)
    changed = replace(task, **fields)
    return task if changed == task else changed


def _status_at(task: Task, run_at: datetime, now: datetime) -> Status:
    """`new` means ready: a task that is to run later is scheduled, and one that is due is not."""
    if run_at > now:
        return next_status(task.status, Change.DELAY)
    return next_status(task.status, Change.PROMOTE) if task.status is Status.SCHEDULED else task.status


def cancelled(task: Task, now: datetime) -> tuple[Task, EventType]:
    """Return the task as its cancellation leaves it, the same object if it was asked for before.

    Raises:
        Conflict: it is done or failed.
    """
    status = next_status(task.status, Change.CANCEL)
    if status is Status.RUNNING:
        asked = task if task.cancel_requested_at else replace(task, cancel_requested_at=now)
        return asked, EventType.UPDATED
    if task.status is status:
        return task, EventType.CANCELLED
    return replace(task, status=status, finished_at=now), EventType.CANCELLED


def rerun(task: Task, now: datetime) -> Task:
    """Return the task as a user's retry leaves it: as if it had just been created.

    Raises:
        Conflict: it is neither failed nor cancelled.
    """
    return replace(
        task,
        status=next_status(task.status, Change.RERUN),
        run_at=now,
        attempt=0,
        progress=None,
        progress_note=None,
        result_json=None,
        error=None,
        started_at=None,
        finished_at=None,
        cancel_requested_at=None,
    )
