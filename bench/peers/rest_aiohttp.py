"""aiohttp on uvloop: python -m bench.peers.rest_aiohttp PORT (docs.aiohttp.org, "Web Server Quickstart")."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import uvloop
from aiohttp import web

from bench.peers import rest_sql as sql

tasks, pages = sql.cache(), sql.cache()
POOL = web.AppKey("pool", asyncpg.Pool)


def dumps(value: object) -> str:
    return json.dumps(value, default=str)


async def get_task(request: web.Request) -> web.Response:
    try:
        task_id = UUID(request.match_info["task_id"])
    except ValueError:
        raise web.HTTPUnprocessableEntity from None
    if (found := tasks.get(task_id)) is None:
        row = await request.app[POOL].fetchrow(sql.GET, task_id, sql.OWNER)
        if row is None:
            raise web.HTTPNotFound
        found = tasks[task_id] = sql.plain(row)
    return web.json_response(found, dumps=dumps)


async def list_tasks(request: web.Request) -> web.Response:
    limit = int(request.query.get("limit", "50"))
    if not 1 <= limit <= 200:
        raise web.HTTPUnprocessableEntity
    if (found := pages.get(limit)) is None:
        rows = await request.app[POOL].fetch(sql.LIST, sql.OWNER, limit)
        found = pages[limit] = {"tasks": [sql.plain(row) for row in rows]}
    return web.json_response(found, dumps=dumps)


async def create_task(request: web.Request) -> web.Response:
    new = await request.json()
    if not isinstance(new.get("title"), str) or not 1 <= len(new["title"]) <= 200:
        raise web.HTTPUnprocessableEntity
    row = await request.app[POOL].fetchrow(
        sql.CREATE,
        sql.new_id(),
        sql.OWNER,
        new.get("kind", "default"),
        new["title"],
        new.get("description", ""),
        json.dumps(new.get("payload", {})),
        new.get("priority", 0),
    )
    pages.clear()
    return web.json_response(sql.plain(row), status=201, dumps=dumps)


async def database(app: web.Application) -> AsyncIterator[None]:
    app[POOL] = await sql.connect()
    yield
    await app[POOL].close()


def main() -> None:
    uvloop.install()
    app = web.Application()
    app.cleanup_ctx.append(database)
    app.add_routes(
        [web.get("/tasks/{task_id}", get_task), web.get("/tasks", list_tasks), web.post("/tasks", create_task)]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
