"""Clients in Node.js: another language's gRPC, that knows of taskd only what the proto file or the server says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskd import Taskd
from taskd.domain.model import Status
from tests.node.programs import needs_node, started
from tests.running import embedded
from tests.waiting import eventually

pytestmark = needs_node

WAYS = [pytest.param([], id="proto"), pytest.param(["--reflection"], id="reflection")]


def address_of(app: Taskd | None) -> str:
    assert app is not None
    assert app.grpc_address is not None
    return app.grpc_address


@pytest.mark.parametrize("flags", WAYS)
async def test_it_creates_reads_lists_and_watches(database_url: str, flags: list[str]) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", grpc="127.0.0.1:0")

    @app.handler("echo")
    async def echo(task: Any, ctx: Any) -> Any:
        return task.payload

    async with app, started("tasks.js", address_of(app), "ann", "echo", *flags) as program:
        lines = await program.rest()
        assert await program.process.wait() == 0
        (task,) = (await app.tasks.list()).tasks
    said = {name: value for line in lines for name, value in line.items()}
    assert said["refused"] == 3
    assert {fault["field"] for fault in said["faults"]} == {"task.title", "task.priority"}
    assert said["created"]["id"] == said["read"]["id"] == str(task.id)
    assert said["listed"] == [str(task.id)]
    events = [line["event"] for line in lines if "event" in line]
    assert events == [f"TASK_EVENT_TYPE_{name}" for name in ("CREATED", "STARTED", "DONE")]
    assert (task.owner, task.title, task.status) == ("ann", "from Node.js: «отчёт» 📋", Status.DONE)
    assert task.payload == task.result == json.loads(said["result"]) == {"number": 1.5, "text": "ёж"}


@pytest.mark.parametrize("flags", WAYS)
async def test_it_works(database_url: str, flags: list[str]) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        app, tasks = server.app, server.app.tasks  # type: ignore[union-attr]
        async with started("worker.js", address_of(app), "ann", *flags) as program:
            assert (await program.next("welcome"))["session"]
            done = await tasks.create("t", kind="node.echo", payload={"n": 1.5, "text": "ё"})
            await eventually(lambda: _is(tasks, done, Status.DONE))
            assert (await tasks.get(done.id)).result == {"n": 1.5, "text": "ё"}

            failed = await tasks.create("t", kind="node.fail", payload={"final": True})
            await eventually(lambda: _is(tasks, failed, Status.FAILED))
            error = (await tasks.get(failed.id)).error
            assert error is not None
            assert (error.type, error.message, error.attempt) == ("TypeError", "as asked", 1)

            again = await tasks.create("t", kind="node.fail", payload={"after": 3600})
            await eventually(lambda: _is(tasks, again, Status.SCHEDULED))
            waits = (await tasks.get(again.id)).run_at - (await tasks.get(again.id)).updated_at
            assert 3590 < waits.total_seconds() <= 3600
            await _cancelled_and_stopped(tasks, program)


async def _is(tasks: Any, task: Any, status: Status) -> bool:
    return (await tasks.get(task.id)).status is status


async def _cancelled_and_stopped(tasks: Any, program: Any) -> None:
    """More tasks than slots: the rest waits. One is cancelled, one is given back when the program ends."""
    held = [await tasks.create("t", kind="node.wait") for _ in range(3)]

    async def half_way() -> bool:
        return [(await tasks.get(task.id)).progress for task in held] == [0.5, 0.5, None]

    await eventually(half_way)
    assert (await tasks.get(held[0].id)).progress_note == "half way"
    assert await _is(tasks, held[2], Status.NEW)
    await tasks.cancel(held[0].id)
    assert (await program.next("cancel"))["attempt"]["task_id"] == str(held[0].id)
    await eventually(lambda: _is(tasks, held[0], Status.CANCELLED))
    await eventually(lambda: _is(tasks, held[2], Status.RUNNING))
    await tasks.cancel(held[1].id)
    await tasks.cancel(held[2].id)
    program.process.terminate()
    await program.rest()
    assert await program.process.wait() == 0


async def test_what_a_dead_worker_held_is_anothers(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        tasks = server.app.tasks
        held = await tasks.create("t", kind="node.wait")
        async with started("worker.js", address_of(server.app), "ann", "--lease=2") as doomed:
            await eventually(lambda: _is(tasks, held, Status.RUNNING))
            await doomed.next("tasks")
        async with started("worker.js", address_of(server.app), "ann", "--lease=2") as heir:
            (task,) = (await heir.next("tasks"))["tasks"]
            assert (task["id"], task["attempt"]) == (str(held.id), 2)
