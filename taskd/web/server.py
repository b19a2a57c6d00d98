"""The listening socket and its connections."""

from __future__ import annotations

import asyncio
import logging
import socket

from taskd.clock import Clock, monotonic
from taskd.errors import StartError
from taskd.http1.head import HeadMemo
from taskd.http1.limits import BadRequest, Limits
from taskd.metrics.catalog import Catalog
from taskd.runtime.budget import Budget
from taskd.runtime.supervisor import Supervisor
from taskd.tls import Tls
from taskd.web.arrival import Arrival
from taskd.web.connection import Connection
from taskd.web.host import Times
from taskd.web.hot import HotAnswers
from taskd.web.listening import Listener, listen
from taskd.web.message import Handler, Request, Response
from taskd.web.upgrade import Upgrader

logger = logging.getLogger("taskd.http")

TICK = 1.0
"""Seconds between looks at the connections' deadlines."""

EXPIRED_AT_ONCE = 20
"""Connections that are ended in one turn of the event loop: each may want an answer, a fifth of a millisecond."""

BACKLOG = 4096
"""Connections that may wait to be accepted, as far as the kernel allows (`net.core.somaxconn`). When it is full, a
client's first packet is lost, and it tries again after a second."""

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted in one turn of the event loop, or an eighth of all if that is less; asyncio takes as
many as the backlog is long. Until they are counted, and until those that make room for them are closed, two turns
later, they have descriptors too."""

MAX_CONNECTIONS = 10_000
"""HTTP connections at once; beyond it the one that matters least makes room, see `HttpServer.opened`."""

IDLE = 1.0
"""Seconds between two requests after which a connection may have to make room."""

MAX_COMING = 32 * 1024 * 1024
"""Bytes of requests that are not complete, of all connections."""

MAX_BODIES = 32 * 1024 * 1024
"""Bytes of bodies whose requests are being answered."""

MAX_UNSENT = 96 * 1024 * 1024
"""Bytes of answers that clients have not taken, of all connections; an answer that several get counts for each."""


Guest = Connection | Arrival


class HttpServer:
    """Serves HTTP/1.1 on one address.

    Call `start`; at the end `stop_accepting`, `drain`, `stop`.

    Args:
        handle: answers requests, and never raises.
        supervisor: owns the task of each request.
        upgrader: takes connections that ask for a WebSocket.
        limits, times: bounds on what clients send, and on how long they take.
        max_connections: HTTP connections at once.
        clock: monotonic seconds, for deadlines.
        catalog: where requests are counted that never reach `handle`, because they can't be read.
        tls: the certificate that is shown; None: no TLS.
        hot: answers that are given again at once.
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
        hot: HotAnswers | None = None,
    ) -> None:
        self._tls = tls
        self._hot = hot
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
        self.coming: Budget[Guest] = Budget(MAX_COMING)
        self.unsent: Budget[Guest] = Budget(MAX_UNSENT)
        self.bodies = 0
        self.fresh: dict[Guest, None] = {}
        self.idle: dict[Guest, None] = {}
        self._connections: set[Guest] = set()
        self._listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def connections(self) -> int:
        """HTTP connections that are open now; those that became WebSockets are not counted."""
        return len(self._connections)

    @property
    def address(self) -> str | None:
        """Where it listens, as `host:port`, or None."""
        return self._listeners[0].address if self._listeners else None

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            StartError: the address is taken, or not this machine's.
        """
        try:
            sockets = await listen(host, port, BACKLOG)
        except OSError as error:
            raise StartError(f"can't listen on {host}:{port} (TASKD_HTTP): {error.strerror or error}") from None
        at_once = max(1, min(ACCEPTED_AT_ONCE, self._max // 8))
        self._listeners = [Listener(one, self._take, self.relieve, at_once) for one in sockets]
        for listener in self._listeners:
            listener.start()
        self.draining = False
        self._arm()

    def _take(self, accepted: socket.socket) -> None:
        Arrival(self, accepted, self._tls, lambda arrived: Connection(self, arrived)).begin()

    async def stop_accepting(self) -> None:
        """Close the listening socket."""
        while self._listeners:
            self._listeners.pop().close()

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

    def tick(self, most: int | None = None) -> bool:
        """End what has taken too long.

        Args:
            most: how many at once; None: all.

        Returns:
            Whether there may be more.
        """
        now = self.clock()
        due = (one for one in tuple(self._connections) if one.deadline is not None and one.deadline <= now)
        for n, connection in enumerate(due):
            if n == most:
                return True
            connection.expire()
        return False

    # What connections tell.

    def opened(self, connection: Guest) -> None:
        """A client has connected. When all places are taken, one that is waited for makes room, if there is any.

        First those who have never asked anything, then those who have been idle for longest, those whose request takes
        longest to come, and those who take longest to take an answer. What is being worked on is never broken off.
        """
        if self.draining:
            connection.abort()
            return
        if len(self._connections) >= self._max and not self.relieve():
            connection.abort()
            return
        self._connections.add(connection)

    def relieve(self) -> bool:
        """Drop the connection that matters least; return whether there was any to be dropped."""
        found = next(iter(self.fresh), None) or self._idle() or self.coming.oldest() or self.unsent.oldest()
        if found is None:
            return False
        found.drop()
        self.closed(found)
        return True

    def _idle(self) -> Guest | None:
        """Return the one that is idle for longest, if that is long: a client in the middle of its work is not idle."""
        found = next(iter(self.idle), None)
        if found is None or found.deadline is None:
            return None
        return found if found.deadline - self.times.idle + IDLE <= self.clock() else None

    def again(self, connection: Guest, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the answer to a request with these very bytes, if it is known; the connection is idle anew then."""
        if self._hot is None or self.draining:
            return None
        now = self.clock()
        answer = self._hot.find(data, now)
        if answer is not None:
            self.idle[connection] = self.idle.pop(connection, None)
            connection.deadline = now + self.times.idle
        return answer

    def keep(self, request: Request, answer: Response) -> None:
        """Take note of an answer, over a connection that goes on."""
        if self._hot is not None:
            self._hot.keep(request, answer)

    def begin(self, body: int) -> None:
        """Take on a request with a body of this size; call `end` then.

        Raises:
            BadRequest: 503; it can't be worked on now.
        """
        if body and self.bodies + body > MAX_BODIES:
            raise BadRequest(503, "too much is being worked on; come again")
        self.bodies += body

    def end(self, body: int) -> None:
        """It has been answered."""
        self.bodies -= body

    def closed(self, connection: Guest) -> None:
        """A connection has ended, or is another protocol's now."""
        self._connections.discard(connection)
        self.fresh.pop(connection, None)
        self.idle.pop(connection, None)
        self.coming.hold(connection, 0)
        self.unsent.hold(connection, 0)
        if not self._connections:
            self._empty.set()

    def _arm(self, seconds: float = TICK) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        # Who came together has to go together; but those who are served meanwhile must not wait for thousands.
        self._arm(0 if self.tick(EXPIRED_AT_ONCE) else TICK)
