"""A real Prometheus with the rules and the configuration of deploy/, that scrapes one taskd often."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.clusters import LAUNCH
from tests.waiting import eventually

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"

INTERVAL = "200ms"
"""Between two scrapes, and between two looks at the rules."""


class Prometheus:
    """Asks a running one, at `url`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its API."""
        answer = await self._client.get(f"/api/v1/{path}", params=query)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    async def series(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return what a query finds: labels and value of each series."""
        data = await self.get("query", query=query)
        assert data["resultType"] == "vector", data
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    async def value(self, query: str) -> float | None:
        """Return the one number that a query finds, or None."""
        found = await self.series(query)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    async def scraped(self) -> bool:
        """Return whether the last scrape went well."""
        return await self.value("up") == 1


@contextlib.asynccontextmanager
async def scraping(target: str) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes `target`, a host and port, until the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="taskd-test-", dir="/tmp"))
    try:
        (directory / "prometheus.yml").write_text(_configuration(target))
        process = _start(directory)
        try:
            address = await eventually(lambda: _address(process, directory / "log"))
            async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as client:
                found = Prometheus(client)
                await eventually(found.scraped)
                yield found
        finally:
            process.terminate()
            process.wait(60)
    finally:
        shutil.rmtree(directory)


def _configuration(target: str) -> str:
    """Return deploy/prometheus.yml with another target and interval."""
    configuration = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    configuration["rule_files"] = [str(DEPLOY / name) for name in configuration["rule_files"]]
    (job,) = configuration["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    return yaml.safe_dump(configuration)


def _start(directory: Path) -> subprocess.Popen[bytes]:
    program = shutil.which("prometheus")
    assert program is not None
    command = [
        program, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    launch = [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), str(os.getuid()), str(os.getgid())]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [*launch, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )


def _address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    """Return where it listens, which it logs: it was left to choose a port."""
    text = log.read_text()
    assert process.poll() is None, text
    found = re.search(r'msg="Listening on".* address=(127\.0\.0\.1:[1-9][0-9]*)', text)
    return found[1] if found else None
