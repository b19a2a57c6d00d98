"""A TCP connection between a client and a server, which a test can break in the ways that networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.waiting import eventually


class Link:
    """One connection: both its ends, and whether what is sent passes."""

    def __init__(self) -> None:
        self.ends: list[asyncio.StreamWriter] = []
        self.requests = asyncio.Event()
        self.answers = asyncio.Event()
        self.requests.set()
        self.answers.set()


class Proxy:
    """Forwards each connection to `target`, as `host:port`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.accepted = 0
        self.refusing = False
        """Close new connections at once."""
        self._links: set[Link] = set()

    def cut(self) -> None:
        """Break all connections that there are; what was held up is lost."""
        for link in self._links:
            for end in link.ends:
                end.transport.abort()

    def freeze(self, *, answers_only: bool = False) -> None:
        """Hold up what is sent over the connections that there are, for good, and tell nobody."""
        for link in self._links:
            link.answers.clear()
            if not answers_only:
                link.requests.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, until either side ends it."""
        self.accepted += 1
        link = Link()
        link.ends.append(writer)
        self._links.add(link)
        try:
            if self.refusing:
                return
            host, port = self.target.rsplit(":", 1)
            back, there = await asyncio.open_connection(host, int(port))
            link.ends.append(there)
            pumps = {
                asyncio.create_task(_pump(reader, there, link.requests)),
                asyncio.create_task(_pump(back, writer, link.answers)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        except OSError:
            return
        finally:
            self._links.discard(link)
            for end in link.ends:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            await flows.wait()
            sink.write(piece)
            await sink.drain()


@contextlib.asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """Run a proxy on a port of its own."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        # A link whose both ends are frozen hears of nothing.
        for link in proxy._links:
            link.requests.set()
            link.answers.set()
        proxy.cut()
        await eventually(lambda: not proxy._links)
