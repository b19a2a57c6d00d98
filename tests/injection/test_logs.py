"""A record of the log is a line, whatever is in it, and no line is anybody else's."""

from __future__ import annotations

import json
import re
import urllib.parse

import pytest

from tests.injection.hostile import TEXTS
from tests.injection.test_answers import SPLITS, answers, request
from tests.running import Server, served
from tests.waiting import eventually

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3}Z? +[A-Z]+ +[a-z][a-z0-9_.]*: |    \| ")


async def be_hostile(server: Server) -> int:
    """Make calls that leave such texts in the log; return how many requests were made."""
    made = 0
    async with server.client() as client:
        for text in TEXTS.values():
            told = urllib.parse.quote(text, safe="")
            for target in (f"/{told}", f"/tasks/{told}", f"/tasks?{told}={told}", f"/tasks?user={told}"):
                await client.get(target)
                made += 1
            await client.post("/tasks", json={"title": text, "kind": "hostile", "payload": {"text": text}})
            made += 1
    for value in [*SPLITS, *[text.encode() for text in TEXTS.values()]]:
        for name in ("X-Request-Id", "traceparent", "X-Taskd-User"):
            await answers(server, request("GET", b"/tasks", name, value))
    await answers(server, b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")
    await answers(server, b"\x1b[31mGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return made


async def all_failed(server: Server) -> bool:
    async with server.client() as client:
        counts: dict[str, int] = (await client.get("/metrics?format=json")).json()["tasks"]
    return counts["failed"] == len(TEXTS)


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_record_is_a_line_and_forges_none(database_url: str, form: str) -> None:
    flags = ["--log", form, "--log-level", "debug"]
    async with served(database_url, *flags, handlers="tests.injection.failing") as server:
        made = await be_hostile(server)
        await eventually(lambda: all_failed(server))
        assert await server.terminate() == 0
        await server.reader  # type: ignore[attr-defined]
    text = "".join(server.output)
    assert not re.search("[^\n\x20-\x7e\xa0-\U0010ffff]", text), "control characters"
    assert not any(mark in text for mark in "\u202e\u2028\u2029\u0085\x1b")
    lines = text.removesuffix("\n").split("\n")
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
        assert not any(record["message"] == "forged" for record in records)
        assert sum(record["logger"] == "taskd.http" for record in records) >= made
    else:
        assert [line for line in lines if not LINE.match(line)] == []
