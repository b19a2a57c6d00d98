"""taskd behind a pooler in transaction mode, which may pass each statement to another connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from taskd import Taskd
from taskd.store.pool import Database
from tests.running import embedded, receive
from tests.waiting import eventually

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
async def pooler_url(database_url: str) -> AsyncIterator[str]:
    """Start PgBouncer before the test's database, as it comes but for the mode; it may not run as root."""
    if PROGRAM is None:
        pytest.skip("no pgbouncer on PATH")
    parts = urlsplit(database_url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = f"host={parse_qs(parts.query)['host'][0]} port=5432 user={parts.username}"
    settings = ("listen_addr=127.0.0.1", f"listen_port={port}", "unix_socket_dir=", "auth_type=any")
    # Not one of pytest's, which are for its own user alone.
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "pgbouncer.ini")
        file.write_text("\n".join((f"[databases]\n* = {server}\n[pgbouncer]", *settings, "pool_mode=transaction", "")))
        Path(directory).chmod(0o755)
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = await asyncio.create_subprocess_exec(PROGRAM, "-q", *as_user, str(file))

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            await eventually(listens)
            yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


async def test_all_of_it_works_behind_a_pooler(database_url: str, pooler_url: str) -> None:
    app = Taskd(database_url=pooler_url, database_listen_url=database_url)

    @app.handler("echo")
    async def echo(task: object, ctx: object) -> str:
        return "said"

    async with embedded(pooler_url, app) as server, server.client() as client, server.socket() as events:
        made = await client.post("/tasks", json={"title": "Compress the video", "kind": "echo"})
        assert made.status_code == 201
        task = made.json()["id"]
        told = [await receive(events) for _ in range(4)][1:]
        assert [message["event"]["type"] for message in told] == ["created", "started", "done"]
        assert (await client.get(f"/tasks/{task}")).json()["result"] == "said"
        found = await client.get("/search", params={"query": "compress"})
        assert [one["task"]["id"] for one in found.json()["results"]] == [task]


async def test_settings_are_sent_to_the_database_alone(database_url: str, pooler_url: str) -> None:
    for url, direct, expected in ((database_url, True, "off"), (pooler_url, False, "on")):
        database = Database(url, direct=direct)
        await database.open()
        assert await database.fetchval("SHOW enable_seqscan") == expected
        await database.close()


async def test_the_commands_go_past_it_or_through_it(database_url: str, pooler_url: str) -> None:
    flags = ("--database-url", pooler_url, "--database-listen-url", database_url)
    for command in (
        ("migrate", *flags),
        ("check", *flags, "--auth", "none"),
        ("token", "create", "--user", "ann", *flags),
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "taskd", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
