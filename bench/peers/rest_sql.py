"""What the REST peers have in common: the table, the statements, and a task as JSON has it."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import asyncpg
from cachetools import TTLCache

SCHEMA = """
CREATE TABLE IF NOT EXISTS peer_tasks (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    payload json NOT NULL,
    status text NOT NULL,
    priority int NOT NULL,
    attempt int NOT NULL,
    max_attempts int NOT NULL,
    timeout_seconds float8 NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS peer_tasks_created ON peer_tasks (owner, created_at DESC, id);
"""
GET = "SELECT * FROM peer_tasks WHERE id = $1 AND owner = $2"
LIST = "SELECT * FROM peer_tasks WHERE owner = $1 ORDER BY created_at DESC, id LIMIT $2"
CREATE = """
INSERT INTO peer_tasks (id, owner, kind, title, description, payload, status, priority, attempt, max_attempts,
                        timeout_seconds, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 'new', $7, 0, 5, 300, 1, now(), now()) RETURNING *
"""
OWNER = "ann"


async def connect() -> asyncpg.Pool:
    """Return a pool, with the table there."""
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)
    await pool.execute(SCHEMA)
    return pool


def cache() -> TTLCache[Any, Any]:
    """Return a cache as large as taskd's, and as long."""
    return TTLCache(maxsize=10_000, ttl=30)


def new_id() -> uuid.UUID:
    return uuid.uuid4()


def plain(row: asyncpg.Record) -> dict[str, Any]:
    """Return a row as values that JSON knows, but for ids and times."""
    return {**row, "payload": json.loads(row["payload"])}
