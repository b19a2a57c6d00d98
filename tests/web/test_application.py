"""All routes together: health, the description, the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from taskd.domain.codec import encode_event, encode_task
from taskd.domain.forms import LIST, NEW_TASK
from taskd.domain.model import Failure, Status
from taskd.metrics.catalog import Catalog
from taskd.service.ports import PartHealth
from taskd.web.application import application, bare_routes, description, routes
from taskd.web.message import Response
from tests.gates import callers
from tests.web.site import field, made
from tests.ws.serving import AT, Log, make_task

# What OpenAPI 3.1.0, section 4.8, asks of a document, as far as this one goes.
_RESPONSE = {"type": "object", "required": ["description"], "properties": {"content": {"type": "object"}}}
_PARAMETER = {
    "type": "object",
    "required": ["name", "in", "schema"],
    "properties": {"in": {"enum": ["query", "header", "path", "cookie"]}, "name": {"type": "string"}},
    "if": {"properties": {"in": {"const": "path"}}},
    "then": {"required": ["required"], "properties": {"required": {"const": True}}},
}
_OPERATION = {
    "type": "object",
    "required": ["operationId", "responses"],
    "properties": {
        "operationId": {"type": "string", "pattern": "^[a-z0-9_]+$"},
        "summary": {"type": "string", "minLength": 1},
        "parameters": {"type": "array", "items": _PARAMETER},
        "requestBody": {"type": "object", "required": ["content"]},
        "responses": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {"^[1-5][0-9]{2}$": _RESPONSE},
            "additionalProperties": False,
        },
        "security": {"type": "array", "items": {"type": "object"}},
    },
    "additionalProperties": False,
}
OPENAPI = {
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {
        "openapi": {"pattern": r"^3\.1\.[0-9]+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "patternProperties": {
                "^/": {
                    "type": "object",
                    "propertyNames": {"enum": ["get", "post", "patch", "delete", "put"]},
                    "additionalProperties": _OPERATION,
                }
            },
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "propertyNames": {"enum": ["schemas", "headers", "securitySchemes"]},
            "properties": {"schemas": {"propertyNames": {"pattern": r"^[a-zA-Z0-9._-]+$"}}},
        },
    },
    "additionalProperties": False,
}

CONTRACT = {
    "/tasks": {"get", "post"},
    "/tasks/batch": {"post"},
    "/tasks/{id}": {"get", "patch", "delete"},
    "/tasks/{id}/cancel": {"post"},
    "/tasks/{id}/retry": {"post"},
    "/tasks/{id}/events": {"get"},
    "/events": {"get"},
    "/ws": {"get"},
    "/metrics": {"get"},
    "/healthz": {"get"},
    "/livez": {"get"},
    "/readyz": {"get"},
    "/openapi.json": {"get"},
    "/": {"get"},
}


class Parts:
    """The port `Health`."""

    def __init__(self) -> None:
        self.ok = True

    def ready(self) -> Mapping[str, PartHealth]:
        return {"database": PartHealth(self.ok, "ok" if self.ok else "away \udcff"), "listener": PartHealth(True, "ok")}


PARTS = Parts()
NOBODY: Any = None
CATALOG = Catalog()
HANDLE = application(routes(NOBODY, NOBODY, Log(), PARTS, CATALOG, NOBODY), callers(), (), CATALOG)


async def ask(method: str, target: str, **fields: str) -> Response:
    answer = await HANDLE(made(method, target, **fields))
    assert isinstance(answer, Response)
    return answer


def schemas(value: object) -> Iterator[dict[str, Any]]:
    """Yield each object that stands as a `schema` in the document."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "schema":
                yield inner
            yield from schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas(inner)


def validator(name: str) -> Draft202012Validator:
    """Return a validator of a named schema of the document."""
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": description()["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def test_the_description_is_openapi() -> None:
    found = json.loads(json.dumps(description()))
    Draft202012Validator(OPENAPI).validate(found)
    for schema in [*schemas(found["paths"]), *found["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(found)))
    assert references == set(found["components"]["schemas"])


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for path in description()["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_the_description_has_every_call_of_the_contract() -> None:
    paths = description()["paths"]
    assert {path: set(paths[path]) for path in CONTRACT} == CONTRACT


def test_every_path_has_its_parameters() -> None:
    for path, operations in description()["paths"].items():
        for operation in operations.values():
            named = {entry["name"] for entry in operation["parameters"] if entry["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
    parameters = description()["paths"]["/tasks"]["get"]["parameters"]
    listed = {entry["name"] for entry in parameters if entry["in"] == "query"}
    assert listed == set(LIST.entries)


def test_what_is_described_is_what_is_checked() -> None:
    assert description()["components"]["schemas"]["NewTask"] == NEW_TASK.schema()


def test_a_task_is_as_described() -> None:
    failure = Failure("ValueError", "no", 1, AT)
    for task in (
        make_task(),
        make_task(status=Status.FAILED, error=failure, progress=0.5, progress_note="half", finished_at=AT),
        make_task(status=Status.DONE, result_json='{"any": [1]}', started_at=AT, timeout_seconds=0.5),
    ):
        validator("Task").validate(json.loads(encode_task(task)))
        validator("Event").validate(json.loads(encode_event("created", task, AT)))
        broken = json.loads(encode_task(task)) | {"unknown": 1}
        assert not validator("Task").is_valid(broken)


@pytest.mark.parametrize(("target", "status"), [("/tasks/x", 422), ("/none", 404), ("/tasks?user=", 422)])
async def test_a_problem_is_as_described(target: str, status: int) -> None:
    answer = await ask("GET", target)
    assert answer.status == status
    validator("Problem").validate(json.loads(answer.body))


async def test_the_description_is_served_and_need_not_be_read_twice() -> None:
    answer = await ask("GET", "/openapi.json")
    assert json.loads(answer.body) == json.loads(json.dumps(description()))
    tag = field(answer, "ETag") or ""
    assert tag.startswith('"')
    for known in (tag, f'"x", W/{tag}', "*"):
        again = await ask("GET", "/openapi.json", If_None_Match=known)
        assert (again.status, again.body, field(again, "ETag")) == (304, b"", tag)
    assert (await ask("GET", "/openapi.json", If_None_Match='"x"')).status == 200
    # As of any other call: a condition that can't be read was meant to be one.
    assert (await ask("GET", "/openapi.json", If_None_Match="nonsense")).status == 422


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
async def test_who_lives_says_so(path: str) -> None:
    answer = await ask("GET", path)
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
    assert field(answer, "Cache-Control") == "no-store"


async def test_readiness_is_told_part_by_part() -> None:
    answer = await ask("GET", "/readyz")
    assert (answer.status, json.loads(answer.body)["ready"]) == (200, True)
    PARTS.ok = False
    try:
        answer = await ask("GET", "/readyz")
    finally:
        PARTS.ok = True
    told = json.loads(answer.body)
    validator("Ready").validate(told)
    assert (answer.status, told["ready"], field(answer, "Retry-After")) == (503, False, "1")
    assert (told["parts"]["database"]["ok"], told["parts"]["listener"]["ok"]) == (False, True)


@pytest.mark.parametrize("path", ["/", "/dashboard.js", "/dashboard.css"])
async def test_the_dashboard_loads_nothing_foreign(path: str) -> None:
    answer = await ask("GET", path, Accept="*/*")
    assert answer.status == 200
    policy = field(answer, "Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"https?://|<script>|<style>| style=| on\w+=|innerHTML", answer.body)
    tag = field(answer, "ETag") or ""
    assert (await ask("GET", path, If_None_Match=tag)).status == 304


async def test_the_dashboard_is_for_who_its_address_says() -> None:
    # Where callers are taken at their word, its own calls pass the name on.
    assert (await ask("GET", "/?user=ann", Accept="*/*")).status == 200
    assert (await ask("GET", "/?colour=red", Accept="*/*")).status == 422


async def test_the_page_has_all_its_files() -> None:
    page = (await ask("GET", "/")).body.decode()
    linked = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    assert {"/dashboard.js", "/dashboard.css"} <= set(linked)
    for path in linked:
        assert (await ask("GET", path)).status == 200


async def test_the_socket_wants_an_upgrade() -> None:
    answer = await ask("GET", "/ws?client=a")
    assert (answer.status, field(answer, "Upgrade")) == (426, "websocket")


async def test_a_process_that_only_works_serves_its_health_and_metrics() -> None:
    handle = application(bare_routes(PARTS, CATALOG), callers())
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/tasks", 404), ("/", 404)):
        answer = await handle(made("GET", path))
        assert answer.status == status
