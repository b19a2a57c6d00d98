"""The README is true: each command in it runs, from a fresh copy of the tree, and does what it says there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taskd.domain.token import TOKEN as TOKEN_SHAPE
from tests.deploy.programs import needs
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
FIGURES_SHOWN = re.findall(r'```json\n({"tasks":{.*})\n```', README)[0]
HANDLERS = re.findall(r"```python\n(# thumbnails.py\n.*?)```", README, re.DOTALL)
DEMO, SOCKET, CREATE, READ, SEARCH, CALL, FIGURES, PROMETHEUS, AVERAGE, SERVE, TOKEN, TESTS = COMMANDS

# A child of a command that is measured would write into this tree.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTHON", "TASKD"))}


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """A copy of what is in the repository, as a clone would have it."""
    # Not one of pytest's: under root nobody else can reach those, and PostgreSQL does not run as root.
    parent = Path(tempfile.mkdtemp(prefix="taskd-clone-", dir="/tmp"))
    parent.chmod(0o755)
    directory = parent / "taskd"
    # What git does not hold, and tools leave behind.
    names = (".git", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "taskd-data", "node_modules")
    left = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, directory, ignore=left)
    yield directory
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number


@functools.cache
def addresses(port: int) -> dict[str, str]:
    """Return where a server of this test listens; the same for who calls it."""
    return {"TASKD_HTTP": f"127.0.0.1:{port}", "TASKD_GRPC": f"127.0.0.1:{free_port()}"}


@contextlib.asynccontextmanager
async def running(command: str, clone: Path, port: int, until: str) -> AsyncIterator[list[str]]:
    """Run a command of the README on another port until the block ends; yields its lines once `until` is among them."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"exec 2>&1; {command}",
        cwd=clone, env=ENVIRONMENT | addresses(port),
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            lines.append(line.decode())

    reading = asyncio.create_task(read())
    try:
        await eventually(lambda: reading.done() or any(until in line for line in lines), within=300)
        assert not reading.done(), "".join(lines)
        yield lines
    finally:
        os.killpg(process.pid, 2)
        await reading
        await process.wait()


async def shell(command: str, clone: Path, port: int) -> str:
    """Run a command of the README against the server on another port, and return what it prints."""
    process = await asyncio.create_subprocess_shell(
        command.replace("127.0.0.1:8080", f"127.0.0.1:{port}"),
        cwd=clone, env=ENVIRONMENT | addresses(port), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


@pytest.mark.timeout(600)
async def test_the_tour_is_as_it_is_told(clone: Path, port: int) -> None:
    async with running(DEMO, clone, port, "What happens now") as demo:
        assert any(str(clone / "taskd-data") in line for line in demo)
        watch = SOCKET.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        async with running(watch, clone, port, '"type":"welcome"') as frames:
            assert '"status":"new"' in await shell(CREATE, clone, port)
            await eventually(lambda: any('"type":"done"' in frame for frame in frames))
        types = re.findall(r'"event":{"type":"(\w+)"', "".join(frames))
        assert types == ["created", "started", *["progress"] * (len(types) - 3), "done"]
        assert len(types) > 3
        assert '"result":{"slept":2}' in await shell(READ, clone, port)
        found = json.loads(await shell(SEARCH, clone, port))
        assert found["results"][0]["highlights"]["title"] == "<mark>Compress</mark> the <mark>video</mark>"
        called = dict(line.split(maxsplit=1) for line in (await shell(CALL, clone, port)).splitlines())
        assert (called["status"], called["result"]) == ("done", '{"hello": "world"}')
        figures = json.loads(await shell(FIGURES, clone, port))
        assert figures["average_processing_seconds"] > 0
        assert figures.keys() == json.loads(FIGURES_SHOWN).keys()
    assert "stopped" in demo[-1]
    await _handlers_run(clone, port)


@pytest.mark.timeout(600)
@needs("prometheus")
@needs("promtool")
async def test_prometheus_tells_the_average_as_it_is_told(clone: Path, port: int) -> None:
    config = clone / "deploy" / "prometheus.yml"
    config.write_text(config.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    other = str(free_port())
    average = AVERAGE.replace("9091", other)
    async with (
        running(DEMO, clone, port, "What happens now"),
        running(PROMETHEUS.replace("9091", other), clone, port, "Server is ready to receive web requests"),
    ):

        async def answered() -> bool:
            return bool(re.fullmatch(r"{} => [0-9.]+ @\[[0-9.]+\]\n", await shell(average, clone, port)))

        await eventually(answered)


async def _handlers_run(clone: Path, port: int) -> None:
    (clone / "thumbnails.py").write_text(HANDLERS[0])
    async with running(SERVE, clone, port, "serving on"):
        await shell(CREATE.replace('"sleep"', '"thumbnail"'), clone, port)

        async def done() -> bool:
            return '"result":{"ok":true}' in await shell(READ, clone, port)

        await eventually(done)
        # On the same database, while it is served.
        assert TOKEN_SHAPE.fullmatch((await shell(TOKEN, clone, port)).strip())


def test_the_test_command_is_the_one_that_the_check_runs() -> None:
    assert TESTS.startswith("python3 -m venv ")
    assert TESTS.endswith("-m pytest")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
