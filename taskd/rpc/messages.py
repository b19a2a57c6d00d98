"""Tasks and events as messages of `taskd.v1`, and back.

What a caller sends becomes the plain value that the same request over REST would hold, so that one set of checks does
for both: what no message can be translated to (a status that does not exist, a time out of range, a payload that is no
JSON) becomes a value that the field's check refuses by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from taskd.domain.codec import MAX_DEPTH, dump_json, format_time, read_json
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.event import Event, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryQuery
from taskd.domain.model import Failure, ListQuery, NewTask, Status, Task
from taskd.domain.search import SearchQuery
from taskd.errors import Invalid, Malformed
from taskd.v1 import taskd_pb2 as pb

ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

STATUS = {status: pb.TaskStatus.Value(f"TASK_STATUS_{status.name}") for status in Status}
STATUS_OF: Mapping[int, Status] = {number: status for status, number in STATUS.items()}
TYPE = {type_: pb.TaskEventType.Value(f"TASK_EVENT_TYPE_{type_.name}") for type_ in EventType}
TYPE_OF: Mapping[int, EventType] = {number: type_ for type_, number in TYPE.items()}

_NOTHING = "no such value"
"""Stands for what is none of a field's values."""


def _too_deep() -> dict[str, Any]:
    value: Any = None
    for _ in range(MAX_DEPTH):
        value = [value]
    return {"": value}


def timestamp(at: datetime) -> Timestamp:
    """Return a time as a message."""
    since = at - ORIGIN
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def time_of(message: Timestamp) -> datetime:
    """Return the time of a message that `timestamp` made."""
    return ORIGIN + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def time_text(message: Timestamp) -> str:
    """Return a caller's time as text, for a check; one that is out of range gives what is no time."""
    try:
        return format_time(time_of(message)) if 0 <= message.nanos < 10**9 else _NOTHING
    except OverflowError:
        return _NOTHING


def duration(seconds: float) -> Duration:
    """Return a span as a message."""
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=rest)


def seconds_of(message: Duration) -> float:
    """Return the seconds of a span."""
    return message.seconds + message.nanos / 1e9


def _time_or_none(at: datetime | None) -> Timestamp | None:
    return None if at is None else timestamp(at)


def task_message(task: Task) -> pb.Task:
    """Return a task as a message."""
    error = task.error
    return pb.Task(
        id=str(task.id),
        owner=task.owner,
        kind=task.kind,
        title=task.title,
        description=task.description,
        payload=task.payload_json,
        status=STATUS[task.status],
        priority=task.priority,
        run_at=timestamp(task.run_at),
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        progress=task.progress,
        progress_note=task.progress_note,
        result=task.result_json,
        error=None
        if error is None
        else pb.TaskError(type=error.type, message=error.message, attempt=error.attempt, at=timestamp(error.at)),
        version=task.version,
        created_at=timestamp(task.created_at),
        updated_at=timestamp(task.updated_at),
        started_at=_time_or_none(task.started_at),
        finished_at=_time_or_none(task.finished_at),
        cancel_requested_at=_time_or_none(task.cancel_requested_at),
    )


def task_of(message: pb.Task) -> Task:
    """Return the task that `task_message` made a message of."""
    # Asked, because a field that is not set reads as a zero.
    has = message.HasField
    error = message.error
    return Task(
        id=UUID(message.id),
        owner=message.owner,
        kind=message.kind,
        title=message.title,
        description=message.description,
        payload_json=message.payload,
        status=STATUS_OF[message.status],
        priority=message.priority,
        run_at=time_of(message.run_at),
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        timeout_seconds=message.timeout_seconds,
        progress=message.progress if has("progress") else None,
        progress_note=message.progress_note if has("progress_note") else None,
        result_json=message.result if has("result") else None,
        error=Failure(error.type, error.message, error.attempt, time_of(error.at)) if has("error") else None,
        version=message.version,
        created_at=time_of(message.created_at),
        updated_at=time_of(message.updated_at),
        started_at=time_of(message.started_at) if has("started_at") else None,
        finished_at=time_of(message.finished_at) if has("finished_at") else None,
        cancel_requested_at=time_of(message.cancel_requested_at) if has("cancel_requested_at") else None,
    )


def event_message(event: Event, cursor: str) -> pb.TaskEvent:
    """Return an event, whose place is `cursor`, as a message."""
    return pb.TaskEvent(
        cursor=cursor,
        type=TYPE[event.type],
        task=task_message(event.task),
        at=timestamp(event.at),
        previous_status=pb.TASK_STATUS_UNSPECIFIED if event.was is None else STATUS[event.was],
    )


def event_of(message: pb.TaskEvent) -> Event:
    """Return the event that `event_message` made a message of."""
    return Event(
        key=decode_log_cursor(message.cursor, "cursor").key,
        type=TYPE_OF[message.type],
        task=task_of(message.task),
        at=time_of(message.at),
        was=STATUS_OF.get(message.previous_status),
    )


def json_of(text: str) -> Any:
    """Return the value of a caller's JSON text, for a check; what is none gives a value that the check refuses."""
    try:
        return read_json(text.encode("utf-8", "surrogatepass"))
    except Malformed:
        return text
    except Invalid:
        return _too_deep()


def new_task_body(message: pb.NewTask) -> dict[str, Any]:
    """Return a new task as REST's body would have it, for `forms.parse_new_task`."""
    return {"title": message.title, **dict(_given(message))}


def patch_body(message: pb.TaskPatch, paths: Iterable[str] = ()) -> dict[str, Any]:
    """Return a patch as REST's merge patch would have it, for `forms.parse_patch`.

    Args:
        paths: of the update mask; none: what is set is changed.
    """
    given = dict(_given(message))
    if message.HasField("title"):
        given["title"] = message.title
    paths = list(paths)
    return {path: given.get(path) for path in paths} if paths else given


def _given(message: pb.NewTask | pb.TaskPatch) -> Iterator[tuple[str, Any]]:
    """Yield the optional fields that are set."""
    for field, value in message.ListFields():
        if field.name == "title":
            continue
        if field.name == "payload":
            yield field.name, json_of(value)
        elif field.name == "run_at":
            yield field.name, time_text(value)
        else:
            yield field.name, value


def new_task_message(draft: NewTask) -> pb.NewTask:
    """Return a new task as a message."""
    return pb.NewTask(
        title=draft.title,
        kind=draft.kind,
        description=draft.description,
        payload=draft.payload_json,
        priority=draft.priority,
        run_at=_time_or_none(draft.run_at),
        max_attempts=draft.max_attempts,
        timeout_seconds=draft.timeout_seconds,
    )


def status_texts(numbers: Iterable[int]) -> Iterator[str]:
    """Yield statuses as a query's texts, for a check; a number that is none gives what is no status."""
    for number in numbers:
        found = STATUS_OF.get(number)
        yield _NOTHING if found is None else found.value


def patch_message(patch: TaskPatch) -> pb.TaskPatch:
    """Return the values of a patch that are set; the update mask names those that are not."""
    fields = dict(patch.fields)
    if fields.get("payload") is not None:
        fields["payload"] = dump_json(fields["payload"])
    if fields.get("run_at") is not None:
        fields["run_at"] = timestamp(fields["run_at"])
    return pb.TaskPatch(**{name: value for name, value in fields.items() if value is not None})


def list_request(query: ListQuery) -> pb.ListTasksRequest:
    """Return the request for a page of a list."""
    return pb.ListTasksRequest(
        statuses=[STATUS[status] for status in query.statuses],
        kind=query.kind or "",
        owner=query.owner or "",
        created_after=None if query.created_after is None else timestamp(query.created_after),
        created_before=None if query.created_before is None else timestamp(query.created_before),
        limit=query.limit,
        cursor=query.cursor or "",
        order=pb.LIST_ORDER_NEWEST_FIRST if query.newest_first else pb.LIST_ORDER_OLDEST_FIRST,
    )


def history_request(query: HistoryQuery) -> pb.ListTaskEventsRequest:
    """Return the request for a page of a task's history."""
    return pb.ListTaskEventsRequest(id=str(query.task_id), limit=query.limit, cursor=query.cursor or "")


def search_request(query: SearchQuery) -> pb.SearchTasksRequest:
    """Return the request for a page of a search."""
    return pb.SearchTasksRequest(
        query=query.text,
        prefix=query.prefix,
        statuses=[STATUS[status] for status in query.statuses],
        kind=query.kind or "",
        limit=query.limit,
        cursor=query.cursor or "",
    )
