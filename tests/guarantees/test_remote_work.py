"""The process that a worker elsewhere is connected to dies with the worker's tasks in its lease."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.rpc.working import done, released, working
from tests.running import Server, served
from tests.waiting import eventually

API = ("--role", "api", "--grpc", "127.0.0.1:0")


def grpc_address(server: Server) -> str:
    """Return where a process serves gRPC, as it says in its log."""
    [found] = {match[1] for line in server.output if (match := re.search(r"gRPC on (127\.0\.0\.1:\d+)", line))}
    return found


async def _task(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
    return task


async def test_the_tasks_of_a_killed_servers_workers_are_taken_over_and_each_finishes_once(database_url: str) -> None:
    async with (
        served(database_url, *API, handlers="") as doomed,
        served(database_url, *API, handlers="") as survivor,
        survivor.client() as client,
        working(None, grpc_address(doomed)) as first,
        working(None, grpc_address(survivor)) as second,
    ):
        await first.hello("remote", slots=4, lease=300.0)
        body = {"tasks": [{"title": f"{n}", "kind": "remote", "max_attempts": 2} for n in range(4)]}
        ids = {task["id"] for task in (await client.post("/tasks/batch", json=body)).json()["tasks"]}
        lost = await first.tasks(4)
        assert {task.id for task in lost} == ids
        await second.hello("remote", slots=4)
        await doomed.kill()

        found = await second.tasks(4)
        assert {(task.id, task.attempt) for task in found} == {(task_id, 2) for task_id in ids}
        # What the first worker has to say comes too late, also if it says so here.
        assert not any((await second.settle(*(done(task, '"late"') for task in lost))).values())
        assert all((await second.settle(*(done(task, '"taken over"') for task in found))).values())
        for task_id in ids:
            task = await _task(client, task_id)
            assert (task["status"], task["attempt"], task["result"]) == ("done", 2, "taken over")
            events = (await client.get(f"/tasks/{task_id}/events")).json()["events"]
            types = [event["type"] for event in events]
            assert types == ["created", "started", "retrying", "updated", "started", "done"]


async def test_a_cancellation_reaches_a_worker_whose_stream_ends_at_another_process(database_url: str) -> None:
    async with (
        served(database_url, *API, handlers="") as asked,
        served(database_url, *API, handlers="") as holder,
        asked.client() as client,
        working(None, grpc_address(holder)) as stream,
    ):
        await stream.hello("remote")
        made = (await client.post("/tasks", json={"title": "t", "kind": "remote"})).json()
        [task] = await stream.tasks()
        assert (await client.post(f"/tasks/{made['id']}/cancel")).json()["status"] == "running"
        told = (await stream.hear("cancel")).attempt
        assert (told.task_id, told.attempt) == (task.id, task.attempt)
        assert await stream.settle(released(task)) == {(task.id, 1): True}

        async def is_cancelled() -> bool:
            return (await _task(client, made["id"]))["status"] == "cancelled"

        await eventually(is_cancelled)
