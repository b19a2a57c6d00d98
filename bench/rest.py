"""REST beside FastAPI, aiohttp and BlackSheep, each on PostgreSQL through asyncpg, with a cache.

    python -m bench.against rest [--rounds 5] [--seconds 4]

All servers have one process on uvloop, ten connections to the same PostgreSQL (`fsync` and `synchronous_commit` on),
and answer as many tasks with the same fields. taskd checks tokens, counts metrics and keeps its event log meanwhile, as
it always does; like its peers, it logs no line for each request. In each round each server is asked once, in turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench.against import Extent
from bench.report import FASTEST, TASKD, Goal, Row, version_of
from bench.servers import Server, free_port, postgres, python, tell, token_of, wrk

CACHED, OTHERS = 32, 64
"""Connections of the load, for what is cached and for all else."""

FLOOR, FASTAPI = "bare protocol", "FastAPI"
PACKAGES = ("asyncpg", "uvloop", "fastapi", "uvicorn", "httptools", "aiohttp", "blacksheep", "granian", "cachetools")
GOALS = {
    "GET of a cached task": (Goal(0.6, FLOOR), Goal(3, FASTEST), Goal(6, FASTAPI)),
    "GET of a cached list of 50": (Goal(0.6, FLOOR), Goal(3, FASTEST), Goal(6, FASTAPI)),
    "POST of a task, committed": (Goal(3, FASTEST),),
    "GET of an uncached task": (Goal(2, FASTEST),),
}


@dataclass(frozen=True)
class Question:
    """One thing that is asked for."""

    name: str
    path: str
    connections: int
    script: str = ""


def questions(ids: Sequence[str]) -> list[Question]:
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
        Question("GET of a cached task", f"/tasks/{ids[0]}", CACHED),
        Question("GET of a cached list of 50", "/tasks?limit=50", CACHED),
        Question("POST of a task, committed", "/tasks", OTHERS, post),
        Question("GET of an uncached task", "/tasks", OTHERS, scattered),
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
def running(number: int) -> Iterator[tuple[list[Server], list[Question]]]:
    """Start all, over so many tasks."""
    with postgres() as cluster:
        url = cluster.url
        found = servers(url, token_of(url))
        taskd = found[0]
        try:
            taskd.start()
            ids = list(_created(taskd, number))
            fill(url, ids)
            for server in found[1:]:
                server.start()
            asked = questions(ids)
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


def measure(extent: Extent) -> tuple[str, list[Row]]:
    """Ask each server for each thing, by turns."""
    size = extent.size or (12_000 if extent.mini else 100_000)
    rows: dict[str, Row] = {}
    with running(size) as (servers, asked):
        sizes = {one.name: len(servers[0].ask("GET", one.path)) for one in asked[:2]}
        for number in range(extent.rounds):
            for question in asked:
                row = rows.setdefault(question.name, Row(question.name, "answers/s", GOALS[question.name], (FLOOR,)))
                for server in servers:
                    if not meant(server, question, sizes):
                        continue
                    sample = wrk(
                        server, question.path, connections=question.connections, seconds=extent.seconds,
                        script=question.script,
                    )  # fmt: skip
                    name = FLOOR if server.name.startswith(FLOOR) else server.name
                    row.add(name, sample)
                    tell(f"{number + 1}/{extent.rounds} {question.name}: {name} {sample.value:.0f}/s")
    words = f"{extent.rounds} rounds of {extent.seconds:g} s, {size} tasks; wrk {version_of('wrk', '-v')}."
    return words, list(rows.values())


def meant(server: Server, question: Question, sizes: dict[str, int]) -> bool:
    """Return whether a server is asked for something: the floor's answer is of one answer's size."""
    return not server.name.startswith(FLOOR) or server.name == f"{FLOOR}, {sizes.get(question.name)} bytes"
