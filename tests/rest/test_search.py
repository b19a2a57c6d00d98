"""`GET /search`, over a socket and a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.fronts import FRONTS, served_by
from tests.running import Server


@pytest.fixture(params=FRONTS)
async def server(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Server]:
    async with served_by(request.param, database_url, role="api") as found:
        yield found


@pytest.fixture
async def ann(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client("ann") as client:
        yield client


async def create(client: httpx.AsyncClient, title: str, description: str = "") -> str:
    answer = await client.post("/tasks", json={"title": title, "description": description, "kind": "nobody"})
    assert answer.status_code == 201
    task_id: str = answer.json()["id"]
    return task_id


async def search(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get("/search", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_task_is_found_by_a_form_of_its_words_as_it_is_read(ann: httpx.AsyncClient) -> None:
    task_id = await create(ann, "Отчёт <b>", "Сверить отчёты & счета")
    found = await search(ann, query="отчета")
    [result] = found["results"]
    assert result["task"] == (await ann.get(f"/tasks/{task_id}")).json()
    assert result["rank"] > 0
    assert result["highlights"] == {
        "title": "<mark>Отчёт</mark> &lt;b&gt;",
        "description": "Сверить <mark>отчёты</mark> &amp; счета",
    }
    assert {**found, "results": []} == {
        "results": [], "total": {"value": 1, "relation": "eq"}, "next_cursor": None, "hint": None,
    }  # fmt: skip


async def test_pages_are_linked(ann: httpx.AsyncClient) -> None:
    made = {await create(ann, f"отчёт {n}") for n in range(5)}
    target: str | None = "/search?query=отчёт&limit=2"
    seen = []
    while target:
        answer = await ann.get(target)
        seen += [result["task"]["id"] for result in answer.json()["results"]]
        assert answer.json()["total"] == {"value": 5, "relation": "eq"}
        target = answer.links["next"]["url"] if "next" in answer.links else None
        assert (target is None) == (answer.json()["next_cursor"] is None)
        assert target is None or urlsplit(target).path == "/search"
    assert len(seen) == 5
    assert set(seen) == made


async def test_nobody_finds_what_is_another_users(server: Server, ann: httpx.AsyncClient) -> None:
    await create(ann, "тайна")
    async with server.client("ben") as ben:
        assert (await search(ben, query="тайна"))["results"] == []


async def test_a_query_without_a_word_is_no_error(ann: httpx.AsyncClient) -> None:
    for query in ("", "и", "the"):
        found = await search(ann, query=query)
        assert found["results"] == []
        assert "no word to search for" in found["hint"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/search", 422),
        ("/search?query=" + "a" * 1001, 422),
        ("/search?query=" + "a" * 10_000, 414),
        ("/search?query=a%00b", 422),
        ("/search?query=%FF", 422),
        ("/search?query=" + "w+" * 500, 200),
        ("/search?query=%22%22%22", 200),
        ("/search?query=%26%7C%21%28", 200),
        ("/search?query=a&owner=ann", 422),
        ("/search?query=a&cursor=x", 422),
    ],
)
async def test_hostile_queries(ann: httpx.AsyncClient, target: str, status: int) -> None:
    answer = await ann.get(target)
    assert answer.status_code == status, answer.text


async def test_real_answers_are_as_described(ann: httpx.AsyncClient) -> None:
    for n in range(2):
        await create(ann, f"отчёт {n}")
    document = (await ann.get("/openapi.json")).json()
    replies = document["paths"]["/search"]["get"]["responses"]
    for target in ("/search?query=отчёт&limit=1", "/search?query=", "/search?query=a&limit=0"):
        answer = await ann.get(target)
        schema = replies[str(answer.status_code)]["content"][answer.headers["Content-Type"]]["schema"]
        Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())
