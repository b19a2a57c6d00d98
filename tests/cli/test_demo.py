"""`taskd demo`, as someone who tries it out meets it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.waiting import eventually

ROOT = Path(__file__).parent.parent.parent


class Demo:
    """A demo that runs, and the lines that it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode())

    async def says(self, pattern: str) -> str:
        def found() -> str:
            match = re.search(pattern, "".join(self.lines))
            assert match or not self._reading.done(), "".join(self.lines)
            return match[0] if match else ""

        return await eventually(found, within=90)

    async def end(self, number: signal.Signals) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = await self.process.wait()
        await self._reading
        return code


@contextlib.asynccontextmanager
async def demo(folder: Path, *words: str) -> AsyncIterator[Demo]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKD")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskd", "demo", "--http", "127.0.0.1:0", "--grpc", "off", *words,
        cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    running = Demo(process)
    try:
        yield running
    finally:
        await running.end(signal.SIGKILL)


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="taskd-demo-", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


async def test_tasks_flow_and_the_data_is_found_again(folder: Path) -> None:
    async with demo(folder) as first:
        await first.says(re.escape(str(folder / "taskd-data")))
        address = (await first.says(r"http://127\.0\.0\.1:\d+/tasks"))[: -len("/tasks")]
        await first.says(r"done +echo +Say hello")
        await first.says(r"progress +sleep +Compress the video +10%")
        await first.says(r"retrying +flaky +Сходить за отчётом +attempt 1 of 5: RuntimeError")
        await first.says(r"failed +fail +Divide by zero +attempt 2 of 2: RuntimeError")
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.get("/")).status_code == 200
            assert len((await client.get("/tasks?user=demo")).json()["tasks"]) == 4
        async with demo(folder) as second:
            await second.says(f"taskd: another taskd uses the data directory {folder / 'taskd-data'}\n")
            assert await second.process.wait() == 1
            assert not any("Traceback" in line for line in second.lines)
        assert await first.end(signal.SIGINT) == 0
        assert "its tasks are still there" in first.lines[-1]
    async with demo(folder) as again:
        await again.says("What happens now")
        address = (await again.says(r"http://127\.0\.0\.1:\d+/tasks"))[: -len("/tasks")]
        async with httpx.AsyncClient(base_url=address) as client:
            assert len((await client.get("/tasks?user=demo")).json()["tasks"]) >= 4
        await again.end(signal.SIGKILL)
    async with demo(folder) as after_a_crash:
        await after_a_crash.says(r"done +echo +Say hello")
        assert await after_a_crash.end(signal.SIGTERM) == 0


async def test_a_port_that_is_taken_is_one_clear_line(database_url: str, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with demo(folder, "--http", address, "--database-url", database_url) as refused:
            assert await refused.process.wait() == 1
            await refused.says(re.escape(f"taskd: can't listen on {address} (TASKD_HTTP): "))
            assert not any("Traceback" in line for line in refused.lines)
