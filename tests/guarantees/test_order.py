"""Many writers, transactions that stay open, a reader that comes and goes: each event once, in one order."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.fronts import both, served_by
from tests.running import Server, embedded, receive


class Reader:
    """A WebSocket client that loses its connection again and again, and resumes."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self.server = server
        self.dice = dice
        self.cursor: str | None = None
        self.frames: list[dict[str, Any]] = []
        self.connections = 0

    async def read_until(self, enough: asyncio.Event, expected: list[int]) -> None:
        while not (enough.is_set() and len(self.frames) >= expected[0]):
            query = {} if self.cursor is None else {"after": self.cursor}
            async with self.server.socket("ann", **query) as socket:
                self.connections += 1
                welcome = await receive(socket)
                assert welcome["recovered"] is (None if self.cursor is None else True)
                self.cursor = self.cursor or welcome["cursor"]
                await self._read_some(socket, enough, expected)

    async def _read_some(self, socket: Any, enough: asyncio.Event, expected: list[int]) -> None:
        try:
            for _ in range(self.dice.randint(1, 60)):
                if enough.is_set() and len(self.frames) >= expected[0]:
                    return
                frame = await receive(socket)
                assert frame["type"] == "event"
                self.frames.append(frame)
                self.cursor = frame["cursor"]
        except ConnectionClosed as error:  # pragma: no cover - would be a fault of the server
            pytest.fail(f"closed: {error}")


async def _change(url: str, number: int, dice: random.Random) -> int:
    """Write as another process would; return how many events that must leave."""
    events = 0
    async with embedded(url, concurrency=1) as server, server.client() as client:
        ids: list[str] = []
        for step in range(30):
            if not ids or dice.random() < 0.4:
                answer = await client.post("/tasks", json={"title": f"writer {number}", "kind": "nobody"})
                ids.append(answer.json()["id"])
            else:
                answer = await client.patch(f"/tasks/{dice.choice(ids)}", json={"title": f"{number}.{step}"})
            assert answer.status_code in (200, 201), answer.text
            events += 1
    return events


async def _hold(url: str, done: asyncio.Event, dice: random.Random) -> int:
    """Keep a transaction open that has written an event; commit it late, then the next."""
    events = 0
    connection = await asyncpg.connect(url)
    try:
        ids = [
            await connection.fetchval(
                "SELECT task_id FROM task_states WHERE owner = 'ann' ORDER BY task_id OFFSET $1", offset
            )
            for offset in range(2)
        ]
        while not done.is_set():
            async with connection.transaction():
                for task_id in ids:
                    await connection.execute(
                        """UPDATE task_states SET priority = priority, event = 'updated', version = version + 1,
                               event_xid = greatest(event_xid, pg_current_xact_id()), updated_at = clock_timestamp()
                           WHERE task_id = $1""",
                        task_id,
                    )
                    events += 1
                    # How long it stays open is what the other writers do meanwhile, not a time.
                    for _ in range(dice.randint(1, 5)):
                        await connection.execute("SELECT 1")
    finally:
        await connection.close()
    return events


@both
async def test_a_reader_that_reconnects_sees_each_event_once_and_in_order(database_url: str, front: str) -> None:
    dice = random.Random(20)
    async with served_by(front, database_url, concurrency=1) as server, server.client() as client:
        reader = Reader(server, dice)
        enough, holders_done, expected = asyncio.Event(), asyncio.Event(), [10**9]
        async with server.socket("ann") as first:
            reader.cursor = (await receive(first))["cursor"]
        for _ in range(4):
            assert (await client.post("/tasks", json={"title": "held", "kind": "nobody"})).status_code == 201
        reading = asyncio.create_task(reader.read_until(enough, expected))
        holders = [asyncio.create_task(_hold(database_url, holders_done, random.Random(n))) for n in range(2)]
        written = sum(await asyncio.gather(*(_change(database_url, n, random.Random(n)) for n in range(8))))
        holders_done.set()
        expected[0] = 4 + written + sum(await asyncio.gather(*holders))
        enough.set()
        async with asyncio.timeout(60):
            await reading
        history = {task_id: await _history(client, task_id) for task_id in {_task(f)["id"] for f in reader.frames}}

    assert len(reader.frames) == expected[0]
    assert len({frame["cursor"] for frame in reader.frames}) == len(reader.frames)
    versions: dict[str, list[int]] = defaultdict(list)
    for frame in reader.frames:
        versions[_task(frame)["id"]].append(_task(frame)["version"])
    for task_id, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)) == history[task_id]
    assert reader.connections > 5


def _task(frame: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = frame["event"]["task"]
    return task


async def _history(client: Any, task_id: str) -> list[int]:
    events = (await client.get(f"/tasks/{task_id}/events?limit=200")).json()["events"]
    return [event["task"]["version"] for event in events]
