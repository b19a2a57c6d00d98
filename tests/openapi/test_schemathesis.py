"""The document against the server: whatever it says may be sent is taken, and whatever comes back is as it says.

Schemathesis makes the calls, from the document alone: good and bad ones, and chains along its links. `make
schemathesis` does the same for longer, see `EXAMPLES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from taskd import Taskd
from taskd.domain.model import Role
from tests.running import Server, embedded
from tests.tokens import token

HERE = Path(__file__).parent
SEED = 1
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))
"""Calls per operation that are drawn, besides the systematic ones."""

LONG = EXAMPLES > 100


@contextlib.asynccontextmanager
async def serving(database_url: str) -> AsyncIterator[tuple[Server, dict[str, str]]]:
    """Run the server that is tested; gives it, and the fields that authorise a call."""
    app = Taskd(database_url=database_url, auth="token", http="127.0.0.1:0", handlers=["taskd.worker.samples"])
    async with embedded(database_url, app) as server:
        # What an admin may call is everything.
        yield server, {"Authorization": f"Bearer {await token(database_url, 'ann', Role.ADMIN)}"}


@pytest.mark.timeout(0 if LONG else 120)
async def test_the_server_does_what_its_document_says(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = (HERE / "schemathesis.toml").read_text("utf-8").replace("HOOKS", str(HERE / "hooks.py"))
    (tmp_path / "schemathesis.toml").write_text(settings, "utf-8")
    async with serving(database_url) as (server, headers):
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            described = await client.get("/openapi.json")
        operations = sum(len(path) for path in described.json()["paths"].values())
        # From a file: from where it is served, the tool would leave out that very call.
        (tmp_path / "openapi.json").write_bytes(described.content)
        command = ["-m", "schemathesis.cli", "--no-color", "run", "openapi.json", "--url", server.url]
        command += ["--seed", str(SEED), "--max-examples", str(EXAMPLES)]
        command += [option for name, value in headers.items() for option in ("--header", f"{name}: {value}")]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"SCHEMATHESIS_HEADERS": json.dumps(headers)},
        )  # fmt: skip
        told = (await process.communicate())[0].decode()
        print(told)
        assert process.returncode == 0, told
    # All operations, in all ways: a phase that is skipped proves nothing.
    assert f"Selected: {operations}/{operations}\n  Tested: {operations}\n" in told
    assert all(f"✅ {phase}\n" in told for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
