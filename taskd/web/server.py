"""The listening socket and its connections."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

from taskd.clock import Clock, monotonic
from taskd.errors import StartError
from taskd.http1.head import HeadMemo
from taskd.http1.limits import Limits
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.tls import Tls
from taskd.web.connection import Connection, Times
from taskd.web.message import Handler
from taskd.web.upgrade import Upgrader

logger = logging.getLogger("taskd.http")

TICK = 1.0
"""Seconds between looks at the connections' deadlines."""

BACKLOG = 1024
MAX_CONNECTIONS = 10_000
"""HTTP connections at once; beyond it a new one is dropped, so that those that are here can be served."""


class HttpServer:
    """Serves HTTP/1.1 on one address.

    Call `start`; at the end `stop_accepting`, `drain`, `stop`.

    Args:
        handle: answers requests, and never raises.
        supervisor: owns the task of each request.
        upgrader: takes connections that ask for a WebSocket.
        limits, times: bounds on what clients send, and on how long they take.
        clock: monotonic seconds, for deadlines.
        catalog: where requests are counted that never reach `handle`, because they can't be read.
        tls: the certificate that is shown; None: no TLS.
    """

    def __init__(
        self,
        handle: Handler,
        supervisor: Supervisor,
        *,
        upgrader: Upgrader | None = None,
        limits: Limits | None = None,
        times: Times | None = None,
        max_connections: int = MAX_CONNECTIONS,
        clock: Clock = monotonic,
        catalog: Catalog | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self.handle = handle
        self.supervisor = supervisor
        self.upgrader = upgrader
        self.limits = limits or Limits()
        self.memo = HeadMemo(self.limits)
        self.times = times or Times()
        self.clock = clock
        self.catalog = catalog or Catalog()
        self.draining = False
        self._max = max_connections
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def connections(self) -> int:
        """HTTP connections that are open now; those that became WebSockets are not counted."""
        return len(self._connections)

    @property
    def address(self) -> str | None:
        """Where it listens, as `host:port`, or None."""
        if not self._servers or not self._servers[0].sockets:
            return None
        host, port, *_ = self._servers[0].sockets[0].getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            StartError: the address is taken, or not this machine's.
        """
        try:
            self._servers = [await self._listen(host=host, port=port, backlog=BACKLOG)]
        except OSError as error:
            raise StartError(f"can't listen on {host}:{port} (TASKD_HTTP): {error.strerror or error}") from None
        self.draining = False
        self._arm()

    async def _listen(self, **where: Any) -> asyncio.Server:
        if self._tls is not None:
            where |= {
                "ssl": self._tls.context,
                "ssl_handshake_timeout": self.times.head,
                "ssl_shutdown_timeout": self.times.linger,
            }
        return await asyncio.get_running_loop().create_server(lambda: Connection(self), **where)

    async def renew(self) -> None:
        """Show the certificate as it is now. No client is refused meanwhile: the same socket is listened on twice."""
        if self._tls is None:
            return
        old, self._servers = self._servers, []
        for server in old:
            for listening in server.sockets:
                again = socket.socket(fileno=os.dup(listening.fileno()))
                self._servers.append(await self._listen(sock=again, backlog=BACKLOG))
            server.close()

    async def stop_accepting(self) -> None:
        """Close the listening socket."""
        while self._servers:
            self._servers.pop().close()

    async def drain(self, within: float) -> None:
        """Close idle connections, and wait up to `within` seconds for those that are being answered."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            self._empty.clear()
            try:
                async with asyncio.timeout(within):
                    await self._empty.wait()
            except TimeoutError:
                logger.info("dropping %d connections that did not end", len(self._connections))

    async def stop(self) -> None:
        """Drop what is left. Safe twice, and before `start`."""
        await self.stop_accepting()
        self.draining = True
        for connection in tuple(self._connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_streams(self) -> None:
        """End all streams: their clients must begin anew."""
        for connection in tuple(self._connections):
            connection.end_stream()

    def tick(self) -> None:
        """End what has taken too long."""
        now = self.clock()
        for connection in tuple(self._connections):
            if connection.deadline is not None and connection.deadline <= now:
                connection.expire()

    # What connections tell.

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        if len(self._connections) >= self._max or self.draining:
            connection.abort()
            return
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection has ended, or is another protocol's now."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._on_timer)

    def _on_timer(self) -> None:
        self.tick()
        self._arm()
