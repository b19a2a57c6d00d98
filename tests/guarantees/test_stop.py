"""SIGTERM under load: nothing is lost, no attempt is burnt."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.running import Server, served
from tests.waiting import eventually


async def _create_until(server: Server, stopped: asyncio.Event, told: list[str]) -> None:
    """Create tasks until the server takes no more; note the ids that were answered with 201."""
    async with server.client() as client:
        while not stopped.is_set():
            try:
                answer = await client.post("/tasks", json={"title": "load", "kind": "echo", "payload": {"n": 1}})
            except httpx.TransportError:
                return
            if answer.status_code != 201:
                assert answer.status_code == 503
                return
            told.append(answer.json()["id"])


async def _long_tasks(client: httpx.AsyncClient) -> list[str]:
    body = {"tasks": [{"title": "long", "kind": "sleep", "payload": {"seconds": 600}} for _ in range(4)]}
    return [task["id"] for task in (await client.post("/tasks/batch", json=body)).json()["tasks"]]


async def test_sigterm_under_load_loses_nothing_and_burns_no_attempt(database_url: str) -> None:
    told: list[str] = []
    stopped = asyncio.Event()
    async with served(database_url, "--concurrency", "8", "--shutdown-seconds", "2") as server:
        async with server.client() as client:
            long = await _long_tasks(client)

            async def long_run() -> bool:
                answers = [(await client.get(f"/tasks/{task_id}")).json() for task_id in long]
                return all(task["status"] == "running" for task in answers)

            await eventually(long_run)
        writers = [asyncio.create_task(_create_until(server, stopped, told)) for _ in range(8)]
        await eventually(lambda: len(told) > 200)
        assert await server.terminate() == 0
        stopped.set()
        await asyncio.gather(*writers)

    async with (
        served(database_url, "--concurrency", "8", handlers="tests.handlers") as server,
        server.client() as client,
    ):
        for task_id in long:
            assert await _finished(client, task_id) == {"status": "done", "attempt": 1}
        types = [event["type"] for event in (await client.get(f"/tasks/{long[0]}/events")).json()["events"]]
        assert "retrying" in types
    async with served(database_url) as server, server.client() as client:
        for task_id in told:
            assert await _finished(client, task_id) == {"status": "done", "attempt": 1}


async def _finished(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    async def done() -> Any:
        task = (await client.get(f"/tasks/{task_id}")).json()
        return task if task["status"] in ("done", "failed", "cancelled") else None

    task = await eventually(done)
    return {"status": task["status"], "attempt": task["attempt"]}


async def test_sockets_are_told_that_the_server_goes_away(database_url: str) -> None:
    async with served(database_url) as server, server.socket() as socket:
        await socket.recv()
        assert await server.terminate() == 0
        await socket.wait_closed()
        assert socket.close_code == 1001


async def test_a_second_signal_does_not_wait_for_running_tasks(database_url: str) -> None:
    async with served(database_url, "--shutdown-seconds", "3600") as server, server.client() as client:
        [task_id, *_] = await _long_tasks(client)

        async def runs() -> bool:
            return bool((await client.get(f"/tasks/{task_id}")).json()["status"] == "running")

        await eventually(runs)
        ending = asyncio.create_task(server.terminate())
        await eventually(lambda: any("stopping" in line for line in server.output))
        assert await server.terminate() == 0
        await ending
