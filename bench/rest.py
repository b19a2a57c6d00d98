"""REST beside FastAPI, aiohttp and BlackSheep, each on PostgreSQL through asyncpg, with a cache.

    python -m bench.against rest [--rounds 5] [--seconds 4]

All servers have one process, ten connections to the same PostgreSQL (`fsync` and `synchronous_commit` on), and answer
as many tasks with the same fields; the peers and the bare protocol run on uvloop, taskd on asyncio's own loop. It
checks tokens, counts metrics and keeps its event log meanwhile, as it always does; like its peers, it logs no line for
each request. In each round each server is asked once, in turn.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench.servers import Load, Server, free_port, postgres, python, wrk

CACHED, OTHERS = 32, 64
"""Connections of the load, for what is cached and for all else."""

TASKD, FLOOR = "taskd", "bare protocol"
FASTAPI = "FastAPI"


@dataclass(frozen=True)
class Row:
    """One thing that is asked for."""

    name: str
    path: str
    connections: int
    script: str = ""


def rows(ids: Sequence[str]) -> list[Row]:
    """Return what is asked for, of tasks with these ids."""
    body = json.dumps({"title": "Compress the video", "kind": "nobody", "payload": {"name": "a.mov", "size": 12}})
    post = f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{body}'\n"
    listed = ",".join(f'"{one}"' for one in ids)
    # A large prime steps through all of them, so that a cache of 10 000 never has the one that is asked for.
    scattered = f"""
local ids = {{{listed}}}
local at = 0
request = function()
  at = (at + 7919) % #ids
  return wrk.format(nil, "/tasks/" .. ids[at + 1])
end
"""
    return [
        Row("GET of a cached task", f"/tasks/{ids[0]}", CACHED),
        Row("GET of a cached list of 50", "/tasks?limit=50", CACHED),
        Row("POST of a task, committed", "/tasks", OTHERS, post),
        Row("GET of an uncached task", "/tasks", OTHERS, scattered),
    ]


def servers(url: str, token: str) -> list[Server]:
    """Return taskd and its peers."""
    database = {"DATABASE_URL": url}
    uvicorn = ["-m", "uvicorn", "bench.peers.rest_fastapi:app", "--host", "127.0.0.1", "--port", "{port}"]
    granian = ["-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--host", "127.0.0.1", "--port", "{port}"]
    serve = ["-m", "taskd", "serve", "--role", "api", "--http", "127.0.0.1:{port}", "--log-level", "warning"]
    return [
        Server(
            TASKD,
            python(*serve, "--grpc", f"127.0.0.1:{free_port()}", "--database-url", url),
            headers={"Authorization": f"Bearer {token}"},
        ),
        Server(
            FASTAPI,
            python(*uvicorn, "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            database,
        ),
        Server("aiohttp", python("-m", "bench.peers.rest_aiohttp", "{port}"), database),
        Server(
            "BlackSheep on Granian",
            python(*granian, "--no-access-log", "bench.peers.rest_blacksheep:app"),
            database,
        ),
    ]


def fill(url: str, ids: Sequence[str]) -> None:
    """Give the peers tasks with the ids of taskd's."""
    from bench.peers.rest_sql import SCHEMA

    listed = ",".join(f"('{one}'::uuid)" for one in ids)
    statement = f"""{SCHEMA}
    INSERT INTO peer_tasks SELECT id, 'ann', 'nobody', 'Compress the video', '', '{{"name": "a.mov", "size": 12}}',
        'new', 0, 0, 5, 300, 1, now(), now() FROM (VALUES {listed}) t (id);
    ANALYZE peer_tasks;
    """

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@contextmanager
def running(number: int) -> Iterator[tuple[list[Server], list[Row]]]:
    """Start all, over so many tasks."""
    with postgres() as cluster:
        url = cluster.url
        made = subprocess.run(
            python("-m", "taskd", "token", "create", "--user", "ann", "--database-url", url),
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = servers(url, made.stdout.strip())
        taskd = found[0]
        try:
            taskd.start()
            ids = list(_created(taskd, number))
            fill(url, ids)
            for server in found[1:]:
                server.start()
            asked = rows(ids)
            for row in asked[:2]:
                size = len(taskd.ask("GET", row.path))
                floor = Server(f"{FLOOR}, {size} bytes", python("-m", "bench.peers.floor_http", "{port}", str(size)))
                floor.start("/")
                found.append(floor)
            yield found, asked
        finally:
            for server in found:
                server.stop()


def _created(taskd: Server, number: int) -> Iterator[str]:
    task = {"title": "Compress the video", "kind": "nobody", "payload": {"name": "a.mov", "size": 12}}
    for first in range(0, number, 1000):
        tasks = [task] * min(1000, number - first)
        answer: Any = json.loads(taskd.ask("POST", "/tasks/batch", json.dumps({"tasks": tasks}).encode()))
        for made in answer["tasks"]:
            yield made["id"]


def measure(server: Server, row: Row, seconds: float) -> Load:
    """Ask a server for a row."""
    return wrk(server, row.path, connections=row.connections, seconds=seconds, script=row.script)


def meant(server: Server, row: Row, sizes: dict[str, int]) -> bool:
    """Return whether a server is asked for a row: the floor's answer is of one row's size."""
    return not server.name.startswith(FLOOR) or server.name == f"{FLOOR}, {sizes.get(row.name)} bytes"
