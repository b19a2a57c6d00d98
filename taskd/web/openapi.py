"""OpenAPI 3.1 of all calls, printed from the routes and from the forms that check what is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskd import __version__
from taskd.domain.access import Access
from taskd.domain.event import EventType
from taskd.domain.forms import NEW_TASK, PATCH, Entry, batch_schema
from taskd.domain.model import Status
from taskd.errors import (
    Forbidden,
    Invalid,
    Malformed,
    NotAcceptable,
    RateLimited,
    TaskdError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from taskd.web.message import JSON
from taskd.web.problem import PROBLEM, STATUS
from taskd.web.router import Route

Schema = Mapping[str, Any]

_TIME: Schema = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXT: Schema = {"type": "string"}
_HTML: Schema = {"type": "string", "contentMediaType": "text/html"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "number", "minimum": 0}


def _object(properties: Mapping[str, Schema], required: Sequence[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


TASK = _object(
    {
        "id": {"type": "string", "format": "uuid"},
        "owner": _TEXT,
        "kind": _TEXT,
        "title": _TEXT,
        "description": _TEXT,
        "payload": {"type": "object"},
        "status": {"enum": [status.value for status in Status]},
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "run_at": _TIME,
        "attempt": _COUNT,
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": 100},
        "timeout_seconds": {"type": "number", "exclusiveMinimum": 0},
        "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "progress_note": {"type": ["string", "null"]},
        "result": {},
        "error": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Failure"}]},
        "version": {"type": "integer", "minimum": 1},
        "created_at": _TIME,
        "updated_at": _TIME,
        "started_at": _MAYBE_TIME,
        "finished_at": _MAYBE_TIME,
        "cancel_requested_at": _MAYBE_TIME,
    }
)
"""As `domain.codec.task_text` writes it; a test holds real answers against it."""

METRICS = _object(
    {
        "tasks": _object({**{status.value: _COUNT for status in Status}, "total": _COUNT}),
        "average_processing_seconds": {"type": ["number", "null"], "minimum": 0},
        "websocket_connections": _COUNT,
        "cache": _object(
            {
                "hits": _COUNT,
                "misses": _COUNT,
                "coalesced": _COUNT,
                "hit_ratio": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "entries": {"type": ["integer", "null"], "minimum": 0},
                "up": {"type": ["boolean", "null"]},
            }
        ),
        "queue": _object({"ready": _COUNT, "running": _COUNT, "oldest_ready_seconds": _SECONDS}),
        "workers": _object({"busy": _COUNT, "slots": _COUNT}),
        "uptime_seconds": _SECONDS,
        "version": _TEXT,
    }
)
"""As `metrics.summary` has it; a test holds real answers against it."""

SCHEMAS: Mapping[str, Schema] = {
    "Task": TASK,
    "Failure": _object({"type": _TEXT, "message": _TEXT, "attempt": _COUNT, "at": _TIME}),
    "NewTask": NEW_TASK.schema(),
    "NewTasks": batch_schema(),
    "TaskPatch": PATCH.schema(),
    "Tasks": _object({"tasks": _list_of("Task")}),
    "Page": _object({"tasks": _list_of("Task"), "next_cursor": {"type": ["string", "null"]}}),
    "Found": _object(
        {
            "results": {
                "type": "array",
                "items": _object(
                    {
                        "task": {"$ref": "#/components/schemas/Task"},
                        "rank": {"type": "number", "minimum": 0},
                        "highlights": _object({"title": _HTML, "description": _HTML}),
                    }
                ),
            },
            "total": _object({"value": _COUNT, "relation": {"enum": ["eq", "gte"]}}),
            "next_cursor": {"type": ["string", "null"]},
            "hint": {"type": ["string", "null"]},
        }
    ),
    "Event": _object(
        {
            "type": {"enum": [type_.value for type_ in EventType]},
            "task": {"$ref": "#/components/schemas/Task"},
            "at": _TIME,
        }
    ),
    "Events": _object({"events": _list_of("Event")}),
    "Metrics": METRICS,
    "Alive": _object({"status": {"const": "ok"}}),
    "Ready": _object(
        {
            "ready": {"type": "boolean"},
            "parts": {
                "type": "object",
                "additionalProperties": _object({"ok": {"type": "boolean"}, "detail": _TEXT}),
            },
        }
    ),
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "request_id": _TEXT,
            "errors": {"type": "array", "items": _object({"field": _TEXT, "message": _TEXT}), "minItems": 1},
        },
        ["type", "title", "status", "detail", "request_id"],
    ),
}


_WORD: Schema = {"type": "apiKey", "in": "header", "name": "X-Taskd-User"}
_TOKEN: Schema = {"type": "http", "scheme": "bearer", "description": "made by `taskd token create`"}


def document(routes: Sequence[Route], *, by_word: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of these routes.

    Args:
        by_word: callers say who they are; otherwise they show a token.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_word)
    return {
        "openapi": "3.1.0",
        "info": {"title": "taskd", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"user": _WORD} if by_word else {"token": _TOKEN},
        },
    }


def _operation(route: Route, by_word: bool) -> dict[str, Any]:
    words = [word for word in route.path.split("/") if word]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]).replace("{id}", "one").replace(".", "_"),
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.access is not Access.OPEN:
        operation["security"] = [{"user": []}, {}] if by_word else [{"token": []}]
    if route.body is not None:
        schema = {"$ref": f"#/components/schemas/{route.body}"}
        content = {media_type: {"schema": schema} for media_type in route.body_types}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    if "{id}" in route.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}})
    for place, entries in (("query", route.query.entries), ("header", route.headers or {})):
        found += [_parameter(name, place, entry) for name, entry in entries.items()]
    return found


def _parameter(name: str, place: str, entry: Entry) -> dict[str, Any]:
    schema = entry.schema()
    return {"name": name, "in": place, "description": schema.pop("description"), "schema": schema}


def _responses(route: Route) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, reply in route.replies.items():
        answer: dict[str, Any] = {"description": reply.meaning}
        if reply.headers:
            answer["headers"] = {name: {"schema": {"type": "string"}} for name in reply.headers}
        if reply.schema is not None:
            answer["content"] = _content(route, reply.schema)
        answers[str(status)] = answer
    for status, titles in sorted(_errors(route).items()):
        if str(status) not in answers:
            content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            answers[str(status)] = {"description": "; ".join(titles), "content": content}
    return answers


def _content(route: Route, schema: str | Schema) -> dict[str, Any]:
    """Return what an answer may be, by media type: JSON has the schema, all else is text."""
    found = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
    if schema == "Problem":
        return {PROBLEM: {"schema": found}}
    return {media_type: {"schema": found if media_type == JSON else _TEXT} for media_type in route.produces}


def _errors(route: Route) -> dict[int, list[str]]:
    classes: list[type[TaskdError]] = [Malformed, Invalid, NotAcceptable, *route.errors]
    if route.access is not Access.OPEN:
        classes += [Unauthenticated, Forbidden, RateLimited, Unavailable]
    if route.body is not None:
        classes += [TooLarge, UnsupportedMedia]
    found: dict[int, list[str]] = {}
    for cls in classes:
        found.setdefault(STATUS[cls], []).append(cls.title)
    return found
