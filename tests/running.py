"""taskd as its users meet it: in this process, or as a process of its own, on a database of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families as read_text
from websockets.asyncio.client import ClientConnection, connect

from taskd import Taskd
from tests.waiting import eventually


@dataclass
class Server:
    """Where a server is, and clients of it."""

    address: str
    app: Taskd | None = None
    process: asyncio.subprocess.Process | None = None
    output: list[str] = field(default_factory=list)
    verify: ssl.SSLContext | None = None
    """How it is asked by TLS; None: it is without."""
    grpc: str | None = None
    """Where gRPC is, of a process that was told to serve it; of an app, `app.grpc_address`."""

    @property
    def url(self) -> str:
        return f"{'http' if self.verify is None else 'https'}://{self.address}"

    def client(self, user: str = "ann", *, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        """Return an HTTP client of one user, known by a token if one is given."""
        headers = {"X-Taskd-User": user} if token is None else {"Authorization": f"Bearer {token}"}
        verify = True if self.verify is None else self.verify
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, verify=verify, **options)

    def socket(self, user: str = "ann", *, token: str | None = None, **query: str) -> connect:
        """Return a WebSocket connection to be entered."""
        headers = None if token is None else {"Authorization": f"Bearer {token}"}
        text = urllib.parse.urlencode(query if token else {"user": user, **query})
        url = f"ws://{self.address}/ws?{text}"
        return connect(url, max_size=None, ping_interval=None, additional_headers=headers)

    async def ready(self) -> bool:
        """Return whether it says that it is ready."""
        async with self.client() as client:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

    async def counted(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels; 0 if there are none."""
        async with self.client() as client:
            families = read_text((await client.get("/metrics")).text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if sample.labels.items() >= labels.items())

    async def has_answered(self, method: str, times: int) -> bool:
        """Return whether so many gRPC calls of a method, `Service/Method`, were answered well."""
        return await self.counted("taskd_grpc_requests_total", method=method, code="OK") == times

    async def kill(self) -> None:
        """End the process without warning."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def terminate(self) -> int:
        """Ask the process to end, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@contextlib.asynccontextmanager
async def embedded(database_url: str, app: Taskd | None = None, **settings: Any) -> AsyncIterator[Server]:
    """Run a Taskd in this loop."""
    settings = {"auth": "none", "http": "127.0.0.1:0", "grpc": "off", "cache": "off"} | settings
    app = app or Taskd(database_url=database_url, **settings)
    async with app:
        assert app.http_address is not None
        yield Server(app.http_address, app)


async def start(
    database_url: str,
    *flags: str,
    handlers: str = "taskd.worker.samples",
    auth: str = "none",
    verify: ssl.SSLContext | None = None,
    descriptors: int | None = None,
    uvloop: bool = True,
) -> Server:
    """Start `taskd serve` as a process, and return it once it is ready.

    Args:
        descriptors: all that it may have.
        uvloop: False: as if it were not installed.
    """
    command = [sys.executable, "-m", "taskd"]
    if not uvloop:
        code = "import sys; sys.modules['uvloop'] = None; from taskd.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code]
    command += ["serve", "--database-url", database_url, "--auth", auth]
    command += ["--http", "127.0.0.1:0", "--grpc", "off", "--log", "json", *flags]
    if handlers:
        command += ["--handlers", handlers]
    if descriptors is not None:
        code = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2); "
        code += "os.execv(sys.argv[2], sys.argv[2:])"
        command = [sys.executable, "-c", code, str(descriptors), *command]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    server = Server("", process=process, verify=verify)
    assert process.stderr is not None
    while not server.address:
        line = (await process.stderr.readline()).decode()
        assert line, f"taskd ended at its start: {''.join(server.output)}"
        server.output.append(line)
        found = re.search(r"https?://(127\.0\.0\.1:\d+)", line)
        server.address = found[1] if found else ""
        found = re.search(r"gRPC on ([\d.:]+)", line)
        server.grpc = found[1] if found else None
    server.reader = asyncio.create_task(_drain(process.stderr, server.output))  # type: ignore[attr-defined]
    await eventually(server.ready)
    return server


async def _drain(stream: asyncio.StreamReader, output: list[str]) -> None:
    while line := await stream.readline():
        output.append(line.decode())


@contextlib.asynccontextmanager
async def served(
    database_url: str,
    *flags: str,
    handlers: str = "taskd.worker.samples",
    auth: str = "none",
    verify: ssl.SSLContext | None = None,
    descriptors: int | None = None,
    uvloop: bool = True,
) -> AsyncIterator[Server]:
    """Run `taskd serve` as a process, and kill it at the end if it still runs."""
    server = await start(
        database_url, *flags, handlers=handlers, auth=auth, verify=verify, descriptors=descriptors, uvloop=uvloop
    )
    try:
        yield server
    finally:
        await server.kill()


async def receive(socket: ClientConnection, within: float = 30) -> dict[str, Any]:
    """Return the next frame of a socket."""
    async with asyncio.timeout(within):
        message: dict[str, Any] = json.loads(await socket.recv())
    return message
