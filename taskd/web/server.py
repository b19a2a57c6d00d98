"""The listening socket and its connections."""

from __future__ import annotations

import asyncio
import logging

from taskd.clock import Clock, monotonic
from taskd.errors import StartError
from taskd.http1.head import HeadMemo
from taskd.http1.limits import Limits
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.web.connection import Connection, Times, Upgrader
from taskd.web.message import Handler

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
    ) -> None:
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
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def connections(self) -> int:
        """HTTP connections that are open now; those that became WebSockets are not counted."""
        return len(self._connections)

    @property
    def address(self) -> str | None:
        """Where it listens, as `host:port`, or None."""
        if self._server is None or not self._server.sockets:
            return None
        host, port, *_ = self._server.sockets[0].getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            StartError: the address is taken, or not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        except OSError as error:
            raise StartError(f"can't listen on {host}:{port} (TASKD_HTTP): {error.strerror or error}") from None
        self.draining = False
        self._arm()

    async def stop_accepting(self) -> None:
        """Close the listening socket."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

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
