"""Every field of every call, wrong in type, range, length or encoding: a 4xx that names it, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.fronts import FRONTS, both, served_by

DEEP = b"[" * 10_000 + b"]" * 10_000
DEEP_OBJECT = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
NOT_TEXT = [b"1", b"true", b"[]", b"{}", b"null", b'"\\u0000"', b'"\\ud800"', b'"\xff\xfe"', b'"a\xc3"', DEEP, b"1e400"]
NOT_INTEGER = [b'"1"', b"true", b"[]", b"{}", b"1.5", b"NaN", b"1e400", b"-Infinity", b"9" * 30, b"9" * 5000, DEEP]
NOT_TIME = [
    b"1",
    b"{}",
    b'"tomorrow"',
    b'"2026-13-01T00:00:00Z"',
    b'"2026-01-01T00:00:00"',
    b'"\\u0000"',
    b'"\xff"',
    DEEP,
]

BAD_FIELDS: dict[str, list[bytes]] = {
    "title": [*NOT_TEXT, b'""', json.dumps("x" * 201).encode()],
    "description": [*[bad for bad in NOT_TEXT if bad != b"null"], json.dumps("x" * 20_001).encode()],
    "kind": [*NOT_TEXT, b'""', b'"UPPER"', '"имя"'.encode(), json.dumps("k" * 65).encode()],
    "payload": [
        b'"text"', b"1", b"[]", b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b'{"a": NaN}',
        b'{"a": 1e400}', b'{"a": ' + b"9" * 5000 + b"}", b'{"a": 1, "a": 2}', b'{"\xff": 1}', DEEP, DEEP_OBJECT,
        json.dumps({"a": "x" * 256 * 1024}).encode(),
    ],
    "priority": [*NOT_INTEGER, b"101", b"-101"],
    "run_at": NOT_TIME,
    "max_attempts": [*NOT_INTEGER, b"0", b"101"],
    "timeout_seconds": [b'"1"', b"true", b"[]", b"0", b"-1", b"NaN", b"Infinity", b"1e400", b"9" * 5000, DEEP],
    "unknown": [b"1"],
    "id": [b'"0198c0c0-0000-7000-8000-000000000000"'],
    "status": [b'"done"'],
}  # fmt: skip

CASES = [
    pytest.param(field, bad, id=f"{field}-{number}")
    for field, bads in BAD_FIELDS.items()
    for number, bad in enumerate(bads)
]

BAD_QUERIES = [
    ("/tasks", "status", "status=finished"),
    ("/tasks", "status", "status=%00"),
    ("/tasks", "status", "status=%FF"),
    ("/tasks", "kind", "kind=A"),
    ("/tasks", "kind", "kind=a&kind=b"),
    ("/tasks", "owner", "owner="),
    ("/tasks", "created_after", "created_after=yesterday"),
    ("/tasks", "created_before", "created_before=2026-01-01"),
    ("/tasks", "limit", "limit=0"),
    ("/tasks", "limit", "limit=201"),
    ("/tasks", "limit", "limit=1e1"),
    ("/tasks", "limit", "limit=" + "9" * 5000),
    ("/tasks", "limit", "limit=%D9%A1"),
    ("/tasks", "cursor", "cursor=garbage"),
    ("/tasks", "cursor", "cursor=" + "A" * 43),
    ("/tasks", "order", "order=title"),
    ("/tasks", "colour", "colour=red"),
    ("/tasks", "%FF", "%FF=1"),
    ("/events", "after", "after=garbage"),
    ("/events", "after", "after=%00"),
    ("/ws", "after", "after=garbage"),
    ("/ws", "client", "client=no%20spaces"),
    ("/ws", "client", "client=" + "c" * 65),
    ("/ws", "colour", "colour=red"),
    ("/readyz", "colour", "colour=red"),
    ("/tasks/not-an-id", "id", ""),
    ("/tasks/not-an-id/events", "id", ""),
    ("/tasks/%FF", "id", ""),
    ("/tasks/0198c0c0-0000-7000-8000-00000000000%D9%A1", "id", ""),
]


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(params=FRONTS)
async def client(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with served_by(request.param, database_url, role="api") as server, server.client() as found:
        yield found


def assert_names(answer: httpx.Response, field: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert any(fault["field"].startswith(field) for fault in problem["errors"]), problem


async def _content(url: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in ("events", "idempotency")]
        return [*counts, *[tuple(row) for row in await connection.fetch("SELECT * FROM task_rows ORDER BY id")]]
    finally:
        await connection.close()


@both
async def test_a_bad_field_is_refused_by_name_and_changes_nothing(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api") as server, server.client() as client:
        created = (await client.post("/tasks", json={"title": "good", "kind": "nobody"})).json()
        before = await _content(database_url)
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        for case in CASES:
            field, bad = case.values
            assert isinstance(field, str)
            assert isinstance(bad, bytes)
            title = b"" if field == "title" else b'"title": "t", '
            one = b"{" + title + b'"' + field.encode() + b'": ' + bad + b"}"
            assert_names(await client.post("/tasks", content=one, headers=headers), field)
            many = b'{"tasks": [{"title": "fine"}, ' + one + b"]}"
            assert_names(await client.post("/tasks/batch", content=many, headers=headers), f"tasks[1].{field}")
            if field == "title" or bad != b"null":
                patch = b'{"' + field.encode() + b'": ' + bad + b"}"
                answer = await client.patch(f"/tasks/{created['id']}", content=patch, headers=headers)
                assert_names(answer, field)
        assert await _content(database_url) == before


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xef\xbb\xbf{}", b"[1,]", b"{'a': 1}", b"\xff", b"{} {}", b'{"title": "t"}\x00'], ids=repr
)
async def test_what_is_no_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/malformed"


@pytest.mark.parametrize("body", [b"1", b"[]", b"null", b'"text"', DEEP], ids=lambda body: repr(body[:9]))
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/tasks", "/tasks/batch"):
        assert_names(await client.post(path, content=body, headers={"Content-Type": "application/json"}), "body")


async def test_every_fault_is_told_at_once(client: httpx.AsyncClient) -> None:
    body = {"title": "", "kind": "NO", "priority": 1000, "max_attempts": "5", "colour": "red"}
    answer = await client.post("/tasks", json=body)
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json()["errors"]] == list(body)


async def test_a_bad_query_is_refused_by_name(client: httpx.AsyncClient) -> None:
    for path, field, query in BAD_QUERIES:
        headers = UPGRADE if path == "/ws" else {}
        answer = await client.get(f"{path}?{query}" if query else path, headers=headers)
        assert_names(answer, "\\" if field == "%FF" else field)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("If-Match", "5"),
        ("If-Match", '"x'),
        ("Idempotency-Key", "x" * 256),
        ("Idempotency-Key", "a b"),
        ("X-Taskd-User", ""),
    ],
)
async def test_a_bad_header_is_refused_by_name(client: httpx.AsyncClient, header: str, value: str) -> None:
    created = (await client.post("/tasks", json={"title": "good", "kind": "nobody"})).json()
    if header == "If-Match":
        answer = await client.patch(f"/tasks/{created['id']}", json={"title": "x"}, headers={header: value})
    else:
        answer = await client.post("/tasks", json={"title": "x"}, headers={header: value})
    assert_names(answer, header)


async def test_bodies_over_the_limit_and_of_other_types_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/tasks", content=b" " * (2**20 + 1))).status_code == 413
    assert (await client.post("/tasks", content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
