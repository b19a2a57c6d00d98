"""OpenAPI 3.1 of all calls, printed from the routes and from the forms that check what is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskd import __version__
from taskd.domain.access import Access
from taskd.domain.event import EventType
from taskd.domain.fields import JSON_REF, json_schema
from taskd.domain.forms import NEW_TASK, PATCH, UNSET, Entry, batch_schema
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
from taskd.web.events import EVENT_STREAM
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
        "payload": {"type": "object", "additionalProperties": {"$ref": JSON_REF}},
        "status": {"enum": [status.value for status in Status]},
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "run_at": _TIME,
        "attempt": _COUNT,
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": 100},
        "timeout_seconds": {"type": "number", "exclusiveMinimum": 0},
        "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "progress_note": {"type": ["string", "null"]},
        "result": {"$ref": JSON_REF},
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

_STREAM_EVENT: Schema = {
    "description": "each event of the stream (HTML standard, section 9.2)",
    "type": "object",
    "properties": {
        "event": {"enum": ["welcome", *[type_.value for type_ in EventType]]},
        "id": {"type": "string", "description": "the cursor of what follows; for `after` and `Last-Event-ID`"},
        "data": {"type": "string", "contentMediaType": JSON},
    },
    "required": ["event", "id", "data"],
    "additionalProperties": False,
}

SCHEMAS: Mapping[str, Schema] = {
    "Json": json_schema(),
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
    "StreamEvent": _STREAM_EVENT,
    "Events": _object({"events": _list_of("Event"), "next_cursor": {"type": ["string", "null"]}}),
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


def _header(meaning: str, required: bool = True, **schema: Any) -> Schema:
    return {"description": meaning, "required": required, "schema": {"type": "string", **schema}}


_LIMIT = "of the caller's calls, if there is a limit: "

HEADERS: Mapping[str, Schema] = {
    "X-Request-Id": _header("the request's id, as it is logged", pattern="^[!-~]{1,128}$"),
    "ETag": _header("the version; for `If-Match` and `If-None-Match`", pattern='^(W/)?"[!#-~]*"$'),
    "Location": _header("where the new task is", format="uri-reference"),
    "Link": _header("the next page, if there is one (RFC 8288)", required=False),
    "Retry-After": _header("seconds after which to come back", pattern="^[0-9]+$"),
    "WWW-Authenticate": _header("how to say who calls"),
    "Upgrade": _header("what to ask for"),
    "RateLimit-Limit": _header(f"{_LIMIT}how many may come at once", required=False, pattern="^[0-9]+$"),
    "RateLimit-Remaining": _header(f"{_LIMIT}how many are left now", required=False, pattern="^[0-9]+$"),
    "RateLimit-Reset": _header(f"{_LIMIT}seconds until all are", required=False, pattern="^[0-9]+$"),
}
"""Fields of answers that mean something; those not required are sent when there is something to say."""

_ERROR_HEADERS: Mapping[int, Sequence[str]] = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}

_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

_IDS: Mapping[str, str] = {"Task": "/id", "Tasks": "/tasks/0/id", "Page": "/tasks/0/id", "Found": "/results/0/task/id"}
"""Where in an answer of a schema there is a task's id, as JSON pointers: what may be asked about it next is linked."""

_CURSORS: Mapping[str, str] = {"Page": "/next_cursor", "Found": "/next_cursor", "Events": "/next_cursor"}


def document(routes: Sequence[Route], *, by_word: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of these routes.

    Args:
        by_word: callers say who they are; otherwise they show a token.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, routes, by_word)
    return {
        "openapi": "3.1.0",
        "info": {"title": "taskd", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "headers": dict(HEADERS),
            "securitySchemes": {"user": _WORD} if by_word else {"token": _TOKEN},
        },
    }


def _name(route: Route) -> str:
    words = [word for word in route.path.split("/") if word]
    return "_".join([route.method.lower(), *words]).replace("{id}", "one").replace(".", "_")


def _operation(route: Route, routes: Sequence[Route], by_word: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, routes),
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
    described = {"name": name, "in": place, "description": schema.pop("description"), "schema": schema}
    return described | ({"required": True} if entry.default is UNSET else {})


def _responses(route: Route, routes: Sequence[Route]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    limits = () if route.access is Access.OPEN else _LIMITS
    for status, reply in route.replies.items():
        answer: dict[str, Any] = {"description": reply.meaning, "headers": _headers((*reply.headers, *limits))}
        if reply.schema is not None:
            answer["content"] = _content(route, reply.schema)
        if isinstance(reply.schema, str) and (links := _links(route, reply.schema, routes)):
            answer["links"] = links
        answers[str(status)] = answer
    for status, titles in sorted(_errors(route).items()):
        if str(status) not in answers:
            content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            headers = _headers((*_ERROR_HEADERS.get(status, ()), *limits))
            answers[str(status)] = {"description": "; ".join(titles), "headers": headers, "content": content}
    return answers


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-Id")}


def _links(route: Route, schema: str, routes: Sequence[Route]) -> dict[str, Any]:
    """Return what may be asked next, with what an answer of this schema says."""
    found: dict[str, Any] = {}
    if place := _IDS.get(schema):
        for other in routes:
            if "{id}" in other.path:
                name = _name(other)
                found[name] = {"operationId": name, "parameters": {"id": f"$response.body#{place}"}}
    if place := _CURSORS.get(schema):
        parameters = {"query.cursor": f"$response.body#{place}"}
        told = "the next page, with the other parameters as they were; there is none if the cursor is null"
        found["next"] = {"operationId": _name(route), "parameters": parameters, "description": told}
    return found


def _content(route: Route, schema: str | Schema) -> dict[str, Any]:
    """Return what an answer may be, by media type: JSON has the schema, all else is text."""
    found = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema
    if schema == "Problem":
        return {PROBLEM: {"schema": found}}
    schemas = {JSON: found, EVENT_STREAM: found}
    return {media_type: {"schema": schemas.get(media_type, _TEXT)} for media_type in route.produces}


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
