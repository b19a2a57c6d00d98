"""A process that dies with tasks in its hands."""

from __future__ import annotations

import time
from typing import Any

import httpx

from taskd.domain.outcome import Ending, Outcome
from taskd.store.claims import ClaimStore
from taskd.store.pool import Database
from tests.running import served
from tests.waiting import eventually


async def _tasks(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await client.get("/tasks", params={"limit": "200", **query})).json()["tasks"]
    return tasks


async def test_the_tasks_of_a_killed_process_are_taken_over_and_each_finishes_once(database_url: str) -> None:
    async with (
        served(database_url, "--concurrency", "8") as doomed,
        served(database_url, "--concurrency", "1", "--role", "api", handlers="") as front,
        front.client() as client,
    ):
        body = {"tasks": [{"title": f"t{n}", "kind": "sleep", "payload": {"seconds": 600}} for n in range(8)]}
        ids = [task["id"] for task in (await client.post("/tasks/batch", json=body)).json()["tasks"]]

        async def all_run() -> bool:
            return len(await _tasks(client, status="running")) == 8

        await eventually(all_run)
        database = Database(database_url)
        await database.open()
        try:
            leases = {row["task_id"]: row["lease"] for row in await _leases(database)}
            # Shorter work for whoever takes over: the test is about the hand-over.
            await doomed.kill()
            killed = time.monotonic()

            async def all_given_back() -> bool:
                return not await _tasks(client, status="running")

            await eventually(all_given_back)
            assert time.monotonic() - killed < 8
            late = [
                Outcome(task_id, 1, lease, Ending.DONE, result_json='"late"') for task_id, lease in leases.items()
            ]
            store = ClaimStore(database)
            assert [await store.finish(outcome) for outcome in late] == [None] * 8
        finally:
            await database.close()

        async with served(database_url, "--concurrency", "8", handlers="tests.handlers"):

            async def all_done() -> bool:
                return len(await _tasks(client, status="done")) == 8

            await eventually(all_done)
        for task_id in ids:
            events = (await client.get(f"/tasks/{task_id}/events")).json()["events"]
            types = [event["type"] for event in events if event["type"] != "progress"]
            assert types.count("done") == 1
            assert types.count("started") == 2
            assert events[-1]["task"]["result"] == {"quick": True}
            assert events[-1]["task"]["attempt"] == 2


async def _leases(database: Database) -> list[Any]:
    async with database.transaction() as connection:
        rows: list[Any] = await connection.fetch("SELECT task_id, lease FROM task_states WHERE status = 'running'")
        return rows
