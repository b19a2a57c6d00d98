"""The database goes away and comes back: 503 in between, no event missed, and nobody has to help."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
import httpx
from websockets.asyncio.client import ClientConnection

from taskd.domain.model import NewTask
from taskd.store.migrate import migrate
from taskd.store.tasks import TaskStore
from tests.clusters import Cluster
from tests.running import embedded, receive
from tests.waiting import eventually

HEALED_WITHIN = 5


async def _created(socket: ClientConnection, title: str) -> None:
    """Read until the task of that title is created."""
    while True:
        event = (await receive(socket))["event"]
        if event["type"] == "created" and event["task"]["title"] == title:
            return


async def test_losing_the_listeners_backend_heals_and_misses_no_event(database_url: str) -> None:
    async with embedded(database_url) as server, embedded(database_url) as other, server.socket() as socket:
        await receive(socket)
        assert server.app is not None
        listener = server.app.parts.listener
        # What is missed is found because the listener comes back, and not because the log is looked at anyway.
        server.app.parts.feed.poll = 3600
        await server.app.tasks.create("settled", kind="nobody", owner="ann")
        await _created(socket, "settled")
        killed = listener.backend
        connection = await asyncpg.connect(database_url)
        try:
            async with other.client() as client:
                assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", killed)
                ended = time.monotonic()
                await client.post("/tasks", json={"title": "meanwhile", "kind": "nobody"})
                await _created(socket, "meanwhile")
                await eventually(lambda: listener.backend not in (None, killed) and listener.fault is None)
                assert time.monotonic() - ended < HEALED_WITHIN
                await client.post("/tasks", json={"title": "after", "kind": "nobody"})
                await _created(socket, "after")
        finally:
            await connection.close()


async def test_each_reconnect_reads_the_log_again(database_url: str) -> None:
    async with embedded(database_url) as server, server.socket() as socket:
        await receive(socket)
        assert server.app is not None
        parts = server.app.parts
        parts.feed.poll = 3600
        await server.app.tasks.create("settled", kind="nobody", owner="ann")
        await _created(socket, "settled")
        # Stands for a change whose notification was lost with the connection: nobody is told of it.
        await TaskStore(parts.database).insert([("ann", NewTask(title="unheard", kind="nobody"))])
        assert await parts.database.fetchval("SELECT pg_terminate_backend($1, 5000)", parts.listener.backend)
        await _created(socket, "unheard")


async def _post(client: httpx.AsyncClient, title: str) -> int:
    answer = await client.post("/tasks", json={"title": title, "kind": "nobody"})
    if answer.status_code == 503:
        assert "Retry-After" in answer.headers
        assert answer.json()["type"] == "/problems/unavailable"
    return answer.status_code


class Collector:
    """Reads a socket's frames in the background."""

    def __init__(self, socket: ClientConnection) -> None:
        self.titles: list[str] = []
        self._reading = asyncio.create_task(self._read(socket))

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            frame = json.loads(message)
            if frame["type"] == "event" and frame["event"]["type"] == "created":
                self.titles.append(frame["event"]["task"]["title"])

    def stop(self) -> None:
        self._reading.cancel()


async def test_a_restart_of_postgresql_heals_by_itself_and_misses_no_event(new_cluster: Any) -> None:
    cluster: Cluster = await new_cluster()
    await migrate(cluster.url)
    async with embedded(cluster.url) as server, server.client() as client, server.socket() as socket:
        await receive(socket)
        collector = Collector(socket)
        assert await _post(client, "before") == 201
        await cluster.stop()
        assert await _post(client, "away") == 503
        assert (await client.get("/healthz")).status_code == 200

        async def says_so() -> bool:
            answer = await client.get("/readyz")
            return bool(answer.status_code == 503 and not answer.json()["parts"]["database"]["ok"])

        await eventually(says_so)
        await cluster.start()
        back = time.monotonic()

        async def healed() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(healed)
        assert time.monotonic() - back < HEALED_WITHIN
        assert await _post(client, "after") == 201
        await eventually(lambda: "after" in collector.titles)
        assert collector.titles == ["before", "after"]
        collector.stop()
