"""A process that dies with tasks in its hands."""

from __future__ import annotations

from typing import Any

import httpx

from taskd.domain.outcome import Ending, Outcome
from taskd.store.claims import ClaimStore
from taskd.store.pool import Database
from tests.running import Server, served
from tests.waiting import eventually


async def _tasks(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await client.get("/tasks", params={"limit": "200", **query})).json()["tasks"]
    return tasks


async def test_the_tasks_of_a_killed_process_are_taken_over_and_each_finishes_once(database_url: str) -> None:
    async with served(database_url, "--concurrency", "8") as doomed, doomed.client() as client:
        body = {"tasks": [{"title": f"t{n}", "kind": "sleep", "payload": {"seconds": 600}} for n in range(8)]}
        ids = [task["id"] for task in (await client.post("/tasks/batch", json=body)).json()["tasks"]]

        async def all_run() -> bool:
            return len(await _tasks(client, status="running")) == 8

        await eventually(all_run)
        await _take_over(database_url, doomed, ids)


async def _take_over(url: str, doomed: Server, ids: list[str]) -> None:
    """Kill a process that runs tasks, with another one beside it whose handlers of the same kind are quick."""
    database = Database(url)
    await database.open()
    async with served(url, "--concurrency", "8", handlers="tests.handlers") as survivor, survivor.client() as client:
        held = await database.fetch("SELECT task_id, lease FROM task_states WHERE status = 'running'")
        assert len(held) == len(ids)
        await doomed.kill()
        died = await database.fetchval("SELECT clock_timestamp()")

        async def all_done() -> bool:
            return len(await _tasks(client, status="done")) == len(ids)

        await eventually(all_done)
        taken_back = await database.fetchval("SELECT max(at) FROM events WHERE type = 'retrying'")
        assert (taken_back - died).total_seconds() < 8
        late = [Outcome(row["task_id"], 1, row["lease"], Ending.DONE, result_json='"late"') for row in held]
        store = ClaimStore(database)
        assert [await store.finish(outcome) for outcome in late] == [None] * len(ids)
        for task_id in ids:
            events = (await client.get(f"/tasks/{task_id}/events")).json()["events"]
            types = [event["type"] for event in events if event["type"] != "progress"]
            assert types == ["created", "started", "retrying", "updated", "started", "done"]
            assert events[-1]["task"]["result"] == {"quick": True}
            assert events[-1]["task"]["attempt"] == 2
    await database.close()
