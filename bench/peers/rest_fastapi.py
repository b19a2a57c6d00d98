"""FastAPI: uvicorn rest_fastapi:app --loop uvloop --http httptools (fastapi.tiangolo.com, "Tutorial")."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

from bench.peers import rest_sql as sql

tasks, pages = sql.cache(), sql.cache()


class NewTask(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    kind: str = Field(default="default", pattern=r"^[a-z0-9_.-]{1,64}$")
    description: str = Field(default="", max_length=20_000)
    payload: dict[str, Any] = {}
    priority: int = Field(default=0, ge=-100, le=100)


class Task(BaseModel):
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


class Page(BaseModel):
    tasks: list[Task]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.pool = await sql.connect()
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


@app.get("/tasks/{task_id}")
async def get_task(task_id: UUID) -> Task:
    if (found := tasks.get(task_id)) is None:
        row = await app.state.pool.fetchrow(sql.GET, task_id, sql.OWNER)
        if row is None:
            raise HTTPException(404, "there is no such task")
        found = tasks[task_id] = Task(**sql.plain(row))
    return found


@app.get("/tasks")
async def list_tasks(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Page:
    if (found := pages.get(limit)) is None:
        rows = await app.state.pool.fetch(sql.LIST, sql.OWNER, limit)
        found = pages[limit] = Page(tasks=[Task(**sql.plain(row)) for row in rows])
    return found


@app.post("/tasks", status_code=201)
async def create_task(new: NewTask) -> Task:
    row = await app.state.pool.fetchrow(
        sql.CREATE, sql.new_id(), sql.OWNER, new.kind, new.title, new.description, json.dumps(new.payload), new.priority
    )
    pages.clear()
    return Task(**sql.plain(row))
