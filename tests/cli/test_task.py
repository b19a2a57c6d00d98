"""`taskd task …`, against a server in this process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from taskd import Taskd
from tests.cli.test_commands import Ended, taskd
from tests.running import embedded
from tests.waiting import eventually


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Taskd]:
    async with embedded(database_url, grpc="127.0.0.1:0", handlers="taskd.worker.samples") as found:
        assert found.app is not None
        yield found.app


async def call(server: Taskd, *words: str) -> Ended:
    assert server.grpc_address is not None
    return await taskd("task", *words, "--user", "ann", TASKD_GRPC=server.grpc_address)


async def create(server: Taskd, *words: str) -> str:
    ended = await call(server, "create", *words, "--json")
    assert ended.code == 0, ended.err
    task_id: str = json.loads(ended.out)["id"]
    return task_id


async def test_a_task_is_created_and_waited_for(server: Taskd) -> None:
    words = ["Say hello", "--kind", "echo", "--payload", '{"n": 1}', "--priority", "5", "--description", "words"]
    ended = await call(server, "create", *words, "--wait", "--json")
    task = json.loads(ended.out)
    assert (ended.code, task["status"], task["result"], task["priority"]) == (0, "done", {"n": 1}, 5)
    shown = await call(server, "get", task["id"])
    assert ["status", "done"] in [line.split() for line in shown.out.splitlines()]
    assert json.loads((await call(server, "get", task["id"], "--json")).out) == task


async def test_a_task_that_fails_ends_the_wait_with_1(server: Taskd) -> None:
    ended = await call(server, "create", "Fails", "--kind", "fail", "--max-attempts", "1", "--wait")
    assert ended.code == 1
    assert "failed" in ended.out


async def test_tasks_are_listed_as_a_table_and_as_json(server: Taskd) -> None:
    made = [await create(server, f"Отчёт {n}", "--kind", "nobody") for n in range(3)]
    ended = await call(server, "list", "--status", "new", "--limit", "2")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["id", "status", "kind", "created", "title"]
    assert [line.split()[0] for line in lines[1:]] == [made[2], made[1]]
    assert lines[1].endswith("Отчёт 2")
    cursor = ended.err.split()[-1]
    page = json.loads((await call(server, "list", "--status", "new", "--cursor", cursor, "--json")).out)
    assert [task["id"] for task in page["tasks"]] == [made[0]]
    assert page["next_cursor"] is None


async def test_tasks_are_found_by_their_words(server: Taskd) -> None:
    task_id = await create(server, "Отчёт за ноябрь", "--kind", "nobody")
    ended = await call(server, "search", "отчёты")
    assert task_id in ended.out
    assert ended.err == "1 found\n"
    found = json.loads((await call(server, "search", "ноя", "--prefix", "--json")).out)
    assert [result["task"]["id"] for result in found["results"]] == [task_id]
    assert "no word to search for" in (await call(server, "search", "и")).err


async def test_tasks_are_cancelled_and_retried(server: Taskd) -> None:
    task_id = await create(server, "Waits", "--kind", "nobody")
    assert json.loads((await call(server, "cancel", task_id, "--json")).out)["status"] == "cancelled"
    assert json.loads((await call(server, "retry", task_id, "--json")).out)["status"] == "new"
    refused = await call(server, "retry", task_id)
    assert refused.code == 1
    assert refused.err == "taskd: a task that is new has no retry\n"


async def test_events_are_shown_as_they_come(server: Taskd) -> None:
    assert server.grpc_address is not None
    words = ["task", "watch", "--server", server.grpc_address, "--user", "ann", "--json", "--kind", "echo"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskd", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    first = asyncio.create_task(process.stdout.readline())

    async def seen() -> bool:
        # It says nothing until something happens, so something does, until it is there.
        await create(server, "Say hello", "--kind", "echo")
        return first.done()

    await eventually(seen)
    event = json.loads(await first)
    assert event["event"]["type"] in ("created", "started", "done")
    assert event["event"]["task"]["kind"] == "echo"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["get", "no-id"], "must be a task's id"),
        (["create", "x", "--payload", "[1]"], "must be a JSON object"),
        (["create", "x", "--payload", "{"], "is no JSON"),
        (["create", "x", "--priority", "1000"], "priority: must be between -100 and 100"),
        (["create", ""], "title: must be 1 to 200 characters long, not 0"),
        (["list", "--status", "odd"], "--status"),
        (["dance"], "dance"),
        ([], "CALL"),
    ],
)
async def test_bad_words_are_a_usage_error(server: Taskd, words: list[str], named: str) -> None:
    ended = await call(server, *words) if words else await taskd("task")
    assert ended.code == 2
    assert named in ended.err


async def test_a_server_that_is_not_there_is_said_so() -> None:
    ended = await taskd("task", "list", "--server", "127.0.0.1:1")
    assert ended.code == 3
    assert ended.err.startswith("taskd: ")


async def test_nobody_sees_what_is_another_users(server: Taskd) -> None:
    task_id = await create(server, "Secret", "--kind", "nobody")
    assert server.grpc_address is not None
    ended = await taskd("task", "get", task_id, "--user", "ben", TASKD_GRPC=server.grpc_address)
    assert (ended.code, ended.err) == (1, f"taskd: there is no task {task_id}\n")


async def test_control_characters_of_others_do_not_reach_the_terminal(server: Taskd) -> None:
    task_id = await create(server, "\x1b[31mred\x07", "--kind", "nobody")
    assert "\x1b" not in (await call(server, "list")).out
    assert "\x1b" not in (await call(server, "get", task_id)).out
