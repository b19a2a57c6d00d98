"""BlackSheep on Granian: granian --interface asgi --loop uvloop rest_blacksheep:app (neoteroi.dev/blacksheep)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from blacksheep import Application, FromJSON, Response, get, post
from blacksheep.server.responses import created, not_found
from blacksheep.server.responses import json as json_response

from bench.peers import rest_sql as sql

tasks, pages = sql.cache(), sql.cache()
app = Application()


@dataclass
class NewTask:
    title: str
    kind: str = "default"
    description: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    priority: int = 0


@dataclass
class Task:
    id: UUID
    owner: str
    kind: str
    title: str
    description: str
    payload: dict[str, Any]
    status: str
    priority: int
    attempt: int
    max_attempts: int
    timeout_seconds: float
    version: int
    created_at: datetime
    updated_at: datetime


@app.on_start
async def start(app: Application) -> None:
    app.pool = await sql.connect()


@app.on_stop
async def stop(app: Application) -> None:
    await app.pool.close()


@get("/tasks/{task_id}")
async def get_task(task_id: UUID) -> Response:
    if (found := tasks.get(task_id)) is None:
        row = await app.pool.fetchrow(sql.GET, task_id, sql.OWNER)
        if row is None:
            return not_found()
        found = tasks[task_id] = Task(**sql.plain(row))
    return json_response(found)


@get("/tasks")
async def list_tasks(limit: int = 50) -> Response:
    if (found := pages.get(limit)) is None:
        rows = await app.pool.fetch(sql.LIST, sql.OWNER, limit)
        found = pages[limit] = {"tasks": [Task(**sql.plain(row)) for row in rows]}
    return json_response(found)


@post("/tasks")
async def create_task(data: FromJSON[NewTask]) -> Response:
    new = data.value
    row = await app.pool.fetchrow(
        sql.CREATE, sql.new_id(), sql.OWNER, new.kind, new.title, new.description, json.dumps(new.payload), new.priority
    )
    pages.clear()
    return created(Task(**sql.plain(row)))
