"""The examples of the client library in the documentation run, and do what they say."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskd import Taskd
from taskd.client import Client
from tests.running import embedded
from tests.waiting import eventually

PAGE = (Path(__file__).parent.parent.parent / "docs" / "client.md").read_text("utf-8")
CALLS, EVENTS, WORKER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Taskd]:
    handlers = ("taskd.worker.samples",)
    async with embedded(database_url, grpc="127.0.0.1:0", handlers=handlers) as server:
        assert server.app is not None
        yield server.app


async def run(example: str, app: Taskd) -> asyncio.subprocess.Process:
    """Start an example as a program."""
    assert app.grpc_address is not None
    program = example.replace("127.0.0.1:50051", app.grpc_address)
    assert program != example
    return await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", program, stdout=asyncio.subprocess.PIPE)


async def test_the_calls(app: Taskd) -> None:
    process = await run(CALLS, app)
    output, _ = await process.communicate()
    (task,) = (await app.tasks.list()).tasks
    assert output.decode().splitlines() == ["done {'slept': 1}", f"{task.id} Compress the video"]
    assert process.returncode == 0


async def test_the_events(app: Taskd) -> None:
    process = await run(EVENTS, app)
    assert process.stdout is not None
    first = asyncio.create_task(process.stdout.readline())

    async def told() -> bool:
        await app.tasks.create("t", owner="me", kind="sleep", payload={"seconds": 0})
        return first.done()

    await eventually(told)
    assert re.fullmatch(r"\S+ [a-z]+ [0-9a-f-]{36}\n", (await first).decode())
    process.kill()
    await process.wait()


async def test_the_worker(app: Taskd) -> None:
    assert app.grpc_address is not None
    process = await run(WORKER, app)
    async with Client(app.grpc_address, user="me") as client:
        task = await client.create("t", kind="thumbnail", payload={"width": 100})
        task = await client.wait(task.id, timeout=60)
    assert task.result == {"width": 100}
    process.terminate()
    assert await process.wait() == 0
