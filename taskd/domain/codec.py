"""Tasks and events as JSON, and JSON from clients as values.

Writing is done by hand and not by `json.dumps` over dicts: `payload` and `result` are JSON text already and go out
byte for byte as they are stored, and an event is encoded once for a thousand sockets.

Reading is lenient in form so that checking can be strict in words: what plain `json.loads` would refuse without
saying where (invalid UTF-8, a number of 5 000 digits, a key given twice) comes out as a value that no field takes,
and the check of that field names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Any
from uuid import UUID

from taskd.domain.model import Failure, Status, Task
from taskd.errors import Fault, Invalid, Malformed

MAX_DEPTH = 64
"""Deepest nesting of a JSON value; PostgreSQL, browsers and Python all read that much without trouble."""

TOO_BIG = 10**30
"""Stands for an integer too long to be worth converting; beyond every range that is checked."""


class Repeated(dict[str, Any]):
    """An object in which `key` was given more than once."""

    key: str


def format_time(at: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds and `Z`."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[:-6] + "Z"


def parse_time(text: str) -> datetime:
    """Return the time that `format_time` wrote."""
    return datetime.fromisoformat(text)


# Made once: `json.dumps` with arguments makes one for each call, which costs more than a small value does.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dump_json(value: object) -> str:
    """Return compact JSON text.

    Raises:
        ValueError: it holds NaN or an infinity, or refers to itself.
        TypeError: it holds something that JSON has no form for.
        RecursionError: it is nested too deep.
    """
    return _encode(value)


def _time_or_null(at: datetime | None) -> str:
    return "null" if at is None else f'"{format_time(at)}"'


def _text_or_null(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _failure(error: Failure | None) -> str:
    if error is None:
        return "null"
    return (
        f'{{"type":{encode_basestring(error.type)},"message":{encode_basestring(error.message)}'
        f',"attempt":{error.attempt},"at":"{format_time(error.at)}"}}'
    )


def task_text(task: Task) -> str:
    """Return a task as JSON text, fields in the order of the contract."""
    created_at = format_time(task.created_at)
    # Of a task that nothing has happened to yet, these are one moment.
    run_at = created_at if task.run_at == task.created_at else format_time(task.run_at)
    updated_at = created_at if task.updated_at == task.created_at else format_time(task.updated_at)
    return (
        f'{{"id":"{task.id}","owner":{encode_basestring(task.owner)},"kind":{encode_basestring(task.kind)}'
        f',"title":{encode_basestring(task.title)},"description":{encode_basestring(task.description)}'
        f',"payload":{task.payload_json},"status":"{task.status}","priority":{task.priority}'
        f',"run_at":"{run_at}","attempt":{task.attempt},"max_attempts":{task.max_attempts}'
        f',"timeout_seconds":{_number(task.timeout_seconds)}'
        f',"progress":{"null" if task.progress is None else _number(task.progress)}'
        f',"progress_note":{_text_or_null(task.progress_note)}'
        f',"result":{"null" if task.result_json is None else task.result_json},"error":{_failure(task.error)}'
        f',"version":{task.version},"created_at":"{created_at}"'
        f',"updated_at":"{updated_at}","started_at":{_time_or_null(task.started_at)}'
        f',"finished_at":{_time_or_null(task.finished_at)}'
        f',"cancel_requested_at":{_time_or_null(task.cancel_requested_at)}}}'
    )


def encode_task(task: Task) -> bytes:
    """Return a task as UTF-8 JSON."""
    return task_text(task).encode()


def encode_tasks(tasks: Iterable[Task]) -> bytes:
    """Return `[task, …]` as UTF-8 JSON."""
    return f"[{','.join(map(task_text, tasks))}]".encode()


def encode_page(tasks: Iterable[Task], next_cursor: str | None) -> bytes:
    """Return `{"tasks", "next_cursor"}` as UTF-8 JSON; a cursor is base64url, and needs no escapes."""
    cursor = "null" if next_cursor is None else f'"{next_cursor}"'
    return f'{{"tasks":[{",".join(map(task_text, tasks))}],"next_cursor":{cursor}}}'.encode()


def encode_event(type_: str, task: Task, at: datetime) -> bytes:
    """Return `{"type", "task", "at"}` as UTF-8 JSON."""
    return f'{{"type":"{type_}","task":{task_text(task)},"at":"{format_time(at)}"}}'.encode()


def decode_task(value: dict[str, Any]) -> Task:
    """Return the task that `encode_task` wrote, from its parsed JSON."""

    def time(name: str) -> datetime | None:
        return None if value[name] is None else parse_time(value[name])

    error = value["error"]
    result = value["result"]
    return Task(
        id=UUID(value["id"]),
        owner=value["owner"],
        kind=value["kind"],
        title=value["title"],
        description=value["description"],
        payload_json=dump_json(value["payload"]),
        status=Status(value["status"]),
        priority=value["priority"],
        run_at=parse_time(value["run_at"]),
        attempt=value["attempt"],
        max_attempts=value["max_attempts"],
        timeout_seconds=float(value["timeout_seconds"]),
        progress=value["progress"],
        progress_note=value["progress_note"],
        result_json=None if result is None else dump_json(result),
        error=error and Failure(error["type"], error["message"], error["attempt"], parse_time(error["at"])),
        version=value["version"],
        created_at=parse_time(value["created_at"]),
        updated_at=parse_time(value["updated_at"]),
        started_at=time("started_at"),
        finished_at=time("finished_at"),
        cancel_requested_at=time("cancel_requested_at"),
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = Repeated(found)
    seen: set[str] = set()
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _integer(text: str) -> int:
    # CPython refuses to convert more than 4 300 digits, by an error that doesn't say where.
    return int(text) if len(text) <= 20 else (-TOO_BIG if text[0] == "-" else TOO_BIG)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def read_json(body: bytes) -> Any:
    """Return the value of a request's body.

    Bytes that are no UTF-8 become lone surrogates, numbers out of range stay out of range, NaN stays NaN and an
    object with a repeated key is a `Repeated`, so that the check of the field it is in can refuse it by name.

    Raises:
        Malformed: no JSON; the message says where.
        Invalid: nested so deep that it can't be read; names the field.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        raise Malformed("the body must not begin with a byte order mark (RFC 8259, section 8.1)")
    text = body.decode("utf-8", errors="surrogateescape")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the body is not JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise Invalid([Fault(_deep_field(text), f"must not be nested deeper than {MAX_DEPTH}")]) from None


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def _deep_field(text: str) -> str:
    """Return the path of the request's field that holds the first too deep value, `tasks[3].payload` say."""
    path: list[str | int] = []
    key: str | None = None
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in "[{":
            path.append(0 if token == "[" else "")
            if len(path) > MAX_DEPTH:
                break
        elif token in "]}":
            path = path[:-1]
        elif token == ",":
            if path and isinstance(path[-1], int):
                path[-1] += 1
        elif path and isinstance(path[-1], str):
            # A value overwrites its key here, but a value opens no deeper level, so it is never reported.
            follows = text[match.end() : match.end() + 64].lstrip()
            path[-1] = json.loads(token, strict=False) if follows.startswith(":") else path[-1]
    first = path[0] if path else ""
    key = first if isinstance(first, str) and first else None
    if key == "tasks" and len(path) > 2 and isinstance(path[1], int):
        return f"tasks[{path[1]}].{path[2]}" if isinstance(path[2], str) else f"tasks[{path[1]}]"
    return key or "body"
