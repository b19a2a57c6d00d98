"""An `HttpServer` on a socket of its own, with a clock that stands still, and clients that send bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from taskd.http1.limits import Limits
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.tls import Tls
from taskd.web.connection import Connection
from taskd.web.host import Times
from taskd.web.message import Answer, Handler, Request, Response
from taskd.web.server import HttpServer
from taskd.web.upgrade import Upgrader

WITHIN = 20.0


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Got:
    """One answer, as a client reads it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """Return a field's value; lines of the same name are joined."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def vanish(self) -> None:
        """Be gone at once: the server gets a reset, where a plain close could be that of one half only."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def head(self) -> Got:
        """Read status line and fields."""
        async with asyncio.timeout(WITHIN):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [text.split(": ", 1) for text in lines]
        return Got(int(status), [(name, value) for name, value in fields])

    async def chunk(self) -> bytes:
        """Read one chunk; the last one is empty."""
        async with asyncio.timeout(WITHIN):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self, *, head: bool = False) -> Got:
        """Read a whole answer; `head` says that it is to a HEAD."""
        got = await self.head()
        length = got.get("Content-Length")
        if head or got.status in (204, 304) or got.status < 200:
            return got
        if got.get("Transfer-Encoding") == "chunked":
            while piece := await self.chunk():
                got.body += piece
        elif length is not None:
            async with asyncio.timeout(WITHIN):
                got.body = await self.reader.readexactly(int(length))
        else:
            got.body = await self.rest()
        return got

    async def rest(self) -> bytes:
        """Read until the server ends the connection."""
        async with asyncio.timeout(WITHIN):
            return await self.reader.read()

    async def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Got:
        """Send a request and read its answer; `_` in names of fields stands for `-`."""
        self.send(request(method, target, body, **fields))
        return await self.answer(head=method == "HEAD")


def request(method: str, target: str, body: bytes | None = None, **fields: str) -> bytes:
    """Return a request's bytes."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def echo(request: Request) -> Answer:
    """Answer with the request's body."""
    return Response(200, request.body, "application/octet-stream")


@dataclass
class Held:
    """A handler that answers when it is told to; `done` counts the answers that it has made."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    done: int = 0

    async def __call__(self, request: Request) -> Answer:
        self.begun += 1
        self.asked.set()
        await self.go.wait()
        self.done += 1
        return Response(200, request.head.target, "text/plain")


@dataclass
class Serving:
    """The server and its clients."""

    server: HttpServer
    clock: Clock
    supervisor: Supervisor
    clients: list[Client] = field(default_factory=list)

    async def client(self, limit: int = 2**20) -> Client:
        """Connect."""
        assert self.server.address is not None
        host, port = self.server.address.rsplit(":", 1)
        client = Client(*await asyncio.open_connection(host, int(port), limit=limit))
        self.clients.append(client)
        return client

    @property
    def connection(self) -> Connection:
        """The server's side of the only connection."""
        (found,) = self.server._connections
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass for the deadlines."""
        self.clock.now += seconds
        self.server.tick()


@contextlib.asynccontextmanager
async def serving(
    handle: Handler = echo,
    *,
    upgrader: Upgrader | None = None,
    limits: Limits | None = None,
    times: Times | None = None,
    max_connections: int = 100,
    catalog: Catalog | None = None,
    tls: Tls | None = None,
) -> AsyncIterator[Serving]:
    """Run a server until the end, and see that nothing of it is left."""
    clock, supervisor = Clock(), Supervisor()
    server = HttpServer(
        handle,
        supervisor,
        upgrader=upgrader,
        limits=limits,
        times=times,
        max_connections=max_connections,
        clock=clock,
        catalog=catalog,
        tls=tls,
    )
    await server.start("127.0.0.1", 0)
    found = Serving(server, clock, supervisor)
    try:
        yield found
        assert not supervisor.failed.done()
    finally:
        await server.stop()
        await supervisor.stop()
        for client in found.clients:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
