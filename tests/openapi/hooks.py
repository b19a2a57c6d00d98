"""What no schema can say of a good request, put right just before it is sent. Loaded by schemathesis."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import schemathesis

from taskd.domain.fields import Bad, Time

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Make a good case one that the server has reason to take; a bad one stays as it is."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        _be_as_described(case)
        _be_first(case)
        _be_a_moment(case)
        _be_in_order(case)
        _be_given_out(case)


def _be_as_described(case: schemathesis.Case) -> None:
    """A field's value matches its pattern. The tool finds none where quotes are asked for, and sends a bad one."""
    for parameter in case.operation.headers:
        described, headers = parameter.definition["schema"], case.headers or {}
        given = headers.get(parameter.name)
        if given is not None and not re.search(described.get("pattern", ""), given):
            headers[parameter.name] = described["examples"][0]


def _be_first(case: schemathesis.Case) -> None:
    """A key that came with another body is refused, and the tool knows few keys: each call has one of its own."""
    if case.headers is not None and (key := case.headers.get("Idempotency-Key")):
        number = str(next(_numbers))
        case.headers["Idempotency-Key"] = key[: 255 - len(number)] + number


def _be_a_moment(case: schemathesis.Case) -> None:
    """A time is none of the two that are infinite to the database: no format leaves just these out."""
    places = [case.query or {}]
    if isinstance(case.body, dict):
        places += [case.body, *[task for task in case.body.get("tasks", ()) if isinstance(task, dict)]]
    for place, name in itertools.product(places, ("run_at", "created_after", "created_before")):
        if isinstance(place.get(name), str) and re.match("(?i)0001-01-0[12]t|9999-12-31t|9999-12-30t", place[name]):
            place[name] = "2000-01-01T00:00:00Z"


def _be_in_order(case: schemathesis.Case) -> None:
    """A span of time must not end before it begins."""
    query = case.query or {}
    if {"created_after", "created_before"} <= query.keys():
        after, before = Time().check(query["created_after"]), Time().check(query["created_before"])
        if not isinstance(after, Bad) and not isinstance(before, Bad) and after >= before:
            del query["created_before"]


def _be_given_out(case: schemathesis.Case) -> None:
    """A cursor is one that the server gave out for the same list; if that has one page only, there is none."""
    query = case.query or {}
    if case.path == "/events" and "after" in query:
        with _open(case, "/events") as stream:
            query["after"] = next(line[4:].strip().decode() for line in stream if line.startswith(b"id: "))
    if case.path not in ("/tasks", "/search", "/tasks/{id}/events") or "cursor" not in query:
        return
    first = {name: value for name, value in query.items() if name != "cursor"} | {"limit": 1}
    try:
        with _open(case, f"{case.formatted_path}?{urllib.parse.urlencode(first, doseq=True)}") as answer:
            cursor = json.load(answer)["next_cursor"]
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        # It is the rest of the query that is refused, and that has to be told of.
        cursor = None
    if cursor is None:
        del query["cursor"]
    else:
        query["cursor"] = cursor


def _open(case: schemathesis.Case, target: str) -> http.client.HTTPResponse:
    headers = json.loads(os.environ["SCHEMATHESIS_HEADERS"])
    request = urllib.request.Request(case.operation.schema.get_base_url().rstrip("/") + target, headers=headers)
    answer: http.client.HTTPResponse = urllib.request.urlopen(request)
    return answer
