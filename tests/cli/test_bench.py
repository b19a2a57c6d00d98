"""`taskd bench`, against a server in a process of its own. No figure of it means anything here, but there is one."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from taskd.cli.bench import Progress
from taskd.domain.model import Role
from tests.access.certificates import Authority
from tests.cli.test_commands import Ended, taskd
from tests.running import Server, served
from tests.tokens import token as make_token
from tests.waiting import eventually

LITTLE = ["--seconds", "0.2", "--connections", "2", "--tasks", "60", "--sockets", "3", "--rate", "50"]


async def bench(server: Server, *words: str, **variables: str) -> Ended:
    return await taskd("bench", "--server", server.url, *LITTLE, *words, **variables)


async def left(server: Server, **who: Any) -> list[str]:
    async with server.client(**who) as client:
        return [task["title"] for task in (await client.get("/tasks")).json()["tasks"]]


async def test_each_row_has_a_figure_and_no_task_is_left(database_url: str) -> None:
    async with served(database_url) as server:
        async with server.client() as client:
            await client.post("/tasks", json={"title": "another's", "kind": "taskd.bench"})
        ended = await bench(server, "--user", "ann", "--json")
        assert ended.code == 0, ended.err
        found = json.loads(ended.out)
        assert found["server"] == server.url
        assert [row["name"] for row in found["rows"]] == [
            "GET of a task, uncached",
            "GET of a task, cached",
            "GET of a list of 50, cached",
            "POST of a task",
            "tasks of kind echo, made to done",
            "POST to event, 50 tasks/s",
            "events to 3 sockets",
        ]
        assert all(row["value"] > 0 and row["number"] > 0 and row["fault"] is None for row in found["rows"])
        assert [row["p50_ms"] is None for row in found["rows"]] == [False] * 4 + [True, False, True]
        assert await left(server) == ["another's"]


async def test_only_the_parts_that_are_named_are_measured_and_shown_as_a_table(database_url: str) -> None:
    async with served(database_url) as server:
        ended = await bench(server, "queue")
        assert ended.code == 0, ended.err
        head, row = ended.out.splitlines()
        assert head.split() == ["rate", "p50,", "ms", "p99,", "ms", "of"]
        assert row.startswith("tasks of kind echo, made to done")
        assert row.endswith("60")
        assert "deleted at the end" in ended.err
        assert "\x1b" not in ended.out + ended.err


async def test_without_a_worker_the_queue_has_no_figure(database_url: str) -> None:
    async with served(database_url, handlers="") as server:
        ended = await bench(server, "queue", "--patience", "0.5")
        assert ended.code == 1
        assert "no worker took a task of kind echo in 0.5 s" in ended.out
        assert await left(server, user="anonymous") == []


async def test_a_kind_that_fails_has_no_figure(database_url: str) -> None:
    async with served(database_url) as server:
        ended = await bench(server, "queue", "--kind", "fail", "--json")
        assert ended.code == 1
        [row] = json.loads(ended.out)["rows"]
        assert row["value"] is None
        assert row["fault"] == "60 of 60 tasks failed"
        assert await left(server, user="anonymous") == []


async def test_more_sockets_than_the_server_keeps_are_no_figure(database_url: str) -> None:
    async with served(database_url, "--ws-connections-per-user", "2") as server:
        ended = await bench(server, "sockets")
        assert ended.code == 1
        assert "TASKD_WS_CONNECTIONS_PER_USER" in ended.out
        assert await left(server, user="anonymous") == []


async def test_a_token_is_shown_and_a_bad_one_refused(database_url: str) -> None:
    async with served(database_url, auth="token") as server:
        good, worker = await make_token(database_url), await make_token(database_url, role=Role.WORKER)
        ended = await bench(server, "sockets", TASKD_TOKEN=good)
        assert ended.code == 0, ended.err
        assert await left(server, token=good) == []
        for token in ("tk_" + "0" * 43, worker):
            refused = await bench(server, TASKD_TOKEN=token)
            assert (refused.code, refused.out) == (1, "")
            assert "taskd: the server refuses this caller: " in refused.err


async def test_a_limit_on_calls_is_obeyed_and_told(database_url: str) -> None:
    async with served(database_url, "--rate-limit", "100") as server:
        ended = await bench(server, "rest", "--json")
        rows = json.loads(ended.out)["rows"]
        assert sum(row["limited"] for row in rows) > 0
        assert await left(server, user="anonymous") == []


async def test_certificates_are_looked_at(database_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with served(database_url, *flags, verify=authority.context()) as server:
        ended = await bench(server, "--ca", str(authority.file), "sockets")
        assert ended.code == 0, ended.err
        assert (await bench(server)).code == 3


def test_a_terminal_is_shown_how_far_it_is_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (True, False):
        shown = io.StringIO()
        monkeypatch.setattr(shown, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", shown)
        progress = Progress()
        progress("made 1 of 2 tasks\x07")
        progress.clear()
        assert shown.getvalue() == ("\r\x1b[Kmade 1 of 2 tasks� …\r\x1b[K" if is_terminal else "")


async def test_a_server_that_is_not_there_is_said_so() -> None:
    ended = await taskd("bench", "--server", "http://127.0.0.1:1")
    assert (ended.code, ended.out) == (3, "")
    assert "taskd: no taskd answers on http://127.0.0.1:1" in ended.err


async def test_bad_words_are_a_usage_error() -> None:
    for words, named in (
        (["--server", "127.0.0.1:50051"], "--server"),
        (["--server", "http://127.0.0.1:1/tasks"], "--server"),
        (["--server", "http://127.0.0.1:1", "--cert", "/nowhere"], "--cert and --key"),
        (["--server", "https://127.0.0.1:1", "--ca", "/nowhere"], "--ca"),
        (["--token-file", "/nowhere"], "--token-file"),
        (["--user", "né"], "printable ASCII"),
        (["--tasks", "0"], "--tasks"),
        (["--seconds", "nan"], "--seconds"),
        (["everything"], "everything"),
    ):
        ended = await taskd("bench", *words)
        assert ended.code == 2, ended
        assert named in ended.err


async def test_an_interrupted_benchmark_leaves_nothing(database_url: str) -> None:
    async with served(database_url) as server:
        words = ["bench", "--server", server.url, "--user", "ann", "--seconds", "600", "--tasks", "60"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "taskd", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

        async def has_begun() -> bool:
            return len(await left(server)) >= 50

        await eventually(has_begun)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        assert (process.returncode, out) == (130, b"")
        assert b"Traceback" not in err
        assert await left(server) == []


async def test_a_server_that_goes_away_is_said_so_with_what_is_left(database_url: str) -> None:
    async with served(database_url) as server:
        words = ["bench", "--server", server.url, "--user", "ann", "--seconds", "600", "--tasks", "60"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "taskd", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

        async def has_begun() -> bool:
            return len(await left(server)) >= 50

        await eventually(has_begun)
        await server.kill()
        _, err = await process.communicate()
        assert process.returncode == 3
        assert b"some tasks of it are left, with bench-" in err
        assert b"Traceback" not in err
