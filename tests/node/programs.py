"""The programs in Node.js beside this file, run as anybody would run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules").exists(),
    reason="Node.js or the packages of tests/node are not here; `npm ci --prefix tests/node` installs these",
)


class Program:
    """A program that prints JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self, *names: str) -> Any:
        """Return what the next line that has one of these names says; no names: the next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := await self.process.stdout.readline():
                said = json.loads(line)
                if not names:
                    return said
                if found := [said[name] for name in names if name in said]:
                    return found[0]
        raise AssertionError(f"it ended without saying {names}")

    async def rest(self) -> list[Any]:
        """Return all lines that are still to come."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return [json.loads(line) async for line in self.process.stdout]


@contextlib.asynccontextmanager
async def started(name: str, *arguments: str) -> AsyncIterator[Program]:
    """Run a program, and end it if it still runs."""
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / name), *arguments, stdout=asyncio.subprocess.PIPE, limit=2**24
    )
    try:
        yield Program(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
