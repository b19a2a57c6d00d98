"""Errors as answers: problem details (RFC 9457), by one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

from taskd import errors
from taskd.domain.codec import dump_json
from taskd.errors import Invalid, RateLimited, TaskdError, Unauthenticated, Unavailable
from taskd.web.message import Response

PROBLEM = "application/problem+json"

STATUS: Mapping[type[TaskdError], int] = {
    errors.TaskdError: 500,
    errors.Rejected: 400,
    errors.Malformed: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotAcceptable: 406,
    errors.Conflict: 409,
    errors.StaleVersion: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Invalid: 422,
    errors.KeyReused: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.ConfigError: 500,
    errors.StartError: 500,
}
"""The status of each error; a test fails when a class is missing."""


def _body(type_: str, title: str, status: int, detail: str, request_id: str, more: Mapping[str, object]) -> bytes:
    problem = {"type": type_, "title": title, "status": status, "detail": detail, "request_id": request_id, **more}
    return dump_json(problem).encode("utf-8", "backslashreplace")


def of_error(error: TaskdError, request_id: str) -> Response:
    """Return the answer that an error is."""
    # A part may raise a finer class of its own: it is answered as the one that it refines.
    status = next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
    if status == 500:
        return of_bug(request_id)
    more: dict[str, object] = {}
    headers: list[tuple[str, str]] = []
    if isinstance(error, Invalid):
        more["errors"] = [{"field": fault.field, "message": fault.message} for fault in error.faults]
    if isinstance(error, Unavailable | RateLimited):
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after)))))
    if isinstance(error, Unauthenticated):
        headers.append(("WWW-Authenticate", "Bearer"))
    body = _body(f"/problems/{error.code}", error.title, status, str(error), request_id, more)
    return Response(status, body, PROBLEM, headers)


def of_status(status: int, detail: str, request_id: str) -> Response:
    """Return the answer to what the protocol itself refuses, or the router: named after the status."""
    phrase = HTTPStatus(status).phrase
    type_ = "malformed" if status == 400 else phrase.lower().replace(" ", "-")
    return Response(status, _body(f"/problems/{type_}", phrase, status, detail, request_id, {}), PROBLEM)


def of_refusal(status: int, detail: str, request_id: str) -> Response:
    """Return the answer to what does not reach the application."""
    again = [("Retry-After", "1")] if status == 503 else []
    return of_status(status, detail, request_id).with_headers(("X-Request-Id", request_id), *again)


def of_bug(request_id: str) -> Response:
    """Return the answer to an error of the server's own: it shows nothing of the inside."""
    detail = "the server failed; its log has more under this request_id"
    return Response(500, _body("/problems/internal", "Internal error", 500, detail, request_id, {}), PROBLEM)
