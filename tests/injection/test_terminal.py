"""What others wrote does nothing to a terminal but show, and stays the same for programs."""

from __future__ import annotations

import asyncio
import json
import sys

from taskd.cli.screen import event_line, printable, table
from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.model import Failure, Status
from tests.cli.test_commands import taskd
from tests.injection.hostile import NUL, TEXTS, each
from tests.running import embedded
from tests.ws.serving import AT, make_task


@each
def test_a_text_is_a_line_of_what_shows(text: str) -> None:
    task = make_task(title=text, owner=text, status=Status.FAILED, error=Failure(text, text, 1, AT), progress=0.5)
    lines = [printable(text), table([task], colours=False).split("\n", 1)[1]]
    lines += [event_line(Event(EventKey(1, 1), type_, task, AT), colours=False) for type_ in EventType]
    assert all(line.isprintable() for line in lines)


async def test_every_call_shows_it_so(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        where = {"TASKD_GRPC": server.app.grpc_address or ""}
        async with server.client() as client:
            bodies = [{"title": text, "description": text, "payload": {text: text}} for text in TEXTS.values()]
            made = (await client.post("/tasks/batch", json={"tasks": bodies})).json()["tasks"]
        calls = [("list",), ("search", "taskd or table or alert", "--prefix"), ("get", made[5]["id"]),
                 ("cancel", made[6]["id"]), ("list", "--json"), ("get", made[5]["id"], "--json"),
                 ("search", "found", "--json")]  # fmt: skip
        for words in calls:
            ended = await taskd("task", *words, "--user", "ann", **where)
            assert ended.code == 0, ended.err
            assert all(line.isprintable() for line in (ended.out + ended.err).split("\n")), words
            if words[-1] == "--json":
                assert json.loads(ended.out)
        ended = await taskd("task", "list", "--user", "ann", "--json", **where)
        assert [task["title"] for task in json.loads(ended.out)["tasks"]] == [body["title"] for body in bodies][::-1]


async def test_what_was_refused_is_told_in_what_shows(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        where = {"TASKD_GRPC": server.app.grpc_address or ""}
        text = TEXTS["ansi"]
        for words in (["create", "t", "--kind", text], ["list", "--cursor", text], ["get", text], [text],
                      ["create", "t", "--payload", json.dumps({text: NUL})], ["list", "--server", text],
                      ["create", "t", "--run-at", text]):  # fmt: skip
            ended = await taskd("task", *words, "--user", "ann", **where)
            assert ended.code != 0
            assert all(line.isprintable() for line in (ended.out + ended.err).split("\n")), (words, ended.err)


async def test_events_are_a_line_each(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server, server.client() as client:
        assert server.app is not None
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "taskd", "task", "watch", "--json", "--user", "ann",
            "--server", server.app.grpc_address or "", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            first = asyncio.ensure_future(process.stdout.readline())
            while not first.done():
                await client.post("/tasks", json={"title": "first"})
                await asyncio.wait([first], timeout=0.1)
            for text in TEXTS.values():
                await client.post("/tasks", json={"title": text, "payload": {text: text}})
            titles = []
            while len(titles) < len(TEXTS):
                line = (await process.stdout.readline()).decode()
                assert line[:-1].isprintable()
                title = json.loads(line)["event"]["task"]["title"]
                titles += [title] if title != "first" else []
            assert titles == list(TEXTS.values())
        finally:
            process.kill()
            await process.wait()
