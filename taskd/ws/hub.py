"""All sockets of this process, and the log's way to them.

The hub reads the feed's batches and gives each event's frame to those who may see it, found by the event's owner, so
that a change of one user's task costs nothing for the others. It owns every connection from the moment it takes over
the transport until the transport is gone. One timer serves them all: pings, missing pongs and closing handshakes that
take too long.

A connection is in two places. In the registry while it is open, where another of the same user and client takes its
place; and among the sockets until its transport is gone, so that what is closing is bounded, waited for and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from taskd.clock import Clock, monotonic
from taskd.domain.event import Event
from taskd.errors import TaskdError, Unavailable
from taskd.http1.head import Head
from taskd.log import request_id_of
from taskd.metrics.catalog import Catalog
from taskd.runtime.budget import Budget
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Feed, Hold
from taskd.ws.connection import Connection
from taskd.ws.deadlines import Deadlines
from taskd.ws.frames import Batch
from taskd.ws.handshake import Admit, Opening, Refusal, accept, read_opening, refusal, status_of
from taskd.ws.refused import Refused
from taskd.ws.registry import MAX_SOCKETS, Registry
from taskd.ws.resume import Pause, Resumer

PING_EVERY = 25.0
PONG_WITHIN = 10.0
CLOSE_WITHIN = 5.0
"""Seconds for the other side to take what is in the buffer and answer the close frame."""

SOCKET_PATH = "/ws"
"""The route of handshakes in metrics, beside those of other requests."""

TICK = 1.0
"""Seconds between looks at the deadlines, while there are sockets."""

MAX_CLOSING = 1000
"""Sockets whose end is being waited for, or a quarter of the sockets if that is less; beyond it the one that has waited
longest is dropped."""

MAX_UNSENT = 48 * 1024 * 1024
"""Bytes that wait for clients to take them, of all sockets; beyond it the one that has been behind for longest is
dropped."""

MAX_UNREAD = 8 * 1024 * 1024
"""Bytes of messages that have not come whole, of all sockets; beyond it the oldest is not waited for."""

MESSAGE_WITHIN = 30.0
"""Seconds from a message's first byte to its last."""


class Entry(NamedTuple):
    """A request for a socket that was looked at: when it came, and what it asks for, or why it is refused."""

    head: Head
    begun: float
    opening: Opening | TaskdError


class Abortable(Protocol):
    """What has a transport of its own that can be dropped."""

    def abort(self) -> None: ...


class Hub:
    """Owner of all WebSockets.

    Call `start` once the feed follows the log, `upgrade` for each request that asks for a socket, `stop` at the end.

    Args:
        feed: the event log.
        admit: says who sent a request; may refuse by raising a `TaskdError`.
        hold: tells of the end of a user's token.
        supervisor: owns the tasks of those who catch up.
        per_user: connections of one user; the oldest gives way to one more.
        most: connections of all users.
        origins: pages that may connect, besides the server's own; `*` for all.
        clock: seconds, for pings and time limits.
        pause: sleeps between attempts to read the log.
        catalog: where handshakes are counted and deliveries measured.
    """

    def __init__(
        self,
        feed: Feed,
        admit: Admit,
        hold: Hold,
        supervisor: Supervisor,
        *,
        per_user: int = 8,
        most: int = MAX_SOCKETS,
        origins: Collection[str] = (),
        clock: Clock = monotonic,
        pause: Pause = asyncio.sleep,
        catalog: Catalog | None = None,
    ) -> None:
        self._catalog = catalog or Catalog()
        self._delivery = self._catalog.delivery.labels()
        self.opened = 0
        """Connections so far."""
        self.events_sent = 0
        """Event frames given to transports so far."""
        self.refused = 0
        """Handshakes that were answered with an error so far."""
        self.closed: Counter[str] = Counter()
        """Connections that ended so far, by reason: one of few words."""
        self._feed = feed
        self._admit = admit
        self._hold = hold
        self._supervisor = supervisor
        self._origins = frozenset(origins)
        self._clock = clock
        self._pause = pause
        self._registry: Registry[Connection] = Registry(per_user)
        self._sockets: set[Abortable] = set()
        self._pings: Deadlines[Connection] = Deadlines(PING_EVERY)
        self._pongs: Deadlines[Connection] = Deadlines(PONG_WITHIN)
        self._closing: Deadlines[Abortable] = Deadlines(CLOSE_WITHIN)
        self._most = most
        self._most_closing = min(MAX_CLOSING, most // 4 + 1)
        self._unsent: Budget[Connection] = Budget(MAX_UNSENT)
        self._unread: Budget[Connection] = Budget(MAX_UNREAD)
        self._messages: Deadlines[Connection] = Deadlines(MESSAGE_WITHIN)
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe = _nothing
        self._running = False
        self._emptied: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._registry)

    @property
    def sockets(self) -> int:
        """Transports that are held now; more than `connections` by those that are being closed."""
        return len(self._sockets)

    def start(self) -> None:
        """Take connections, and follow the feed. Safe twice."""
        if not self._running:
            self._running = True
            self._unsubscribe = self._feed.subscribe(self._on_events)

    async def stop(self, within: float = CLOSE_WITHIN) -> None:
        """Refuse new connections, close all with 1001, and wait for them to go.

        Safe twice, and before `start`.

        Args:
            within: seconds after which those that are left are dropped.
        """
        self._running = False
        self._unsubscribe()
        self._unsubscribe = _nothing
        self.close_all(1001, "shutdown")
        self._emptied = asyncio.Event()
        # The second wait is for the loop to tell of transports that were dropped.
        for limit in (within, CLOSE_WITHIN):
            if not self._sockets:
                break
            try:
                async with asyncio.timeout(limit):
                    await self._emptied.wait()
            except TimeoutError:
                for socket in tuple(self._sockets):
                    socket.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """Ask all to connect anew (1012): the log is no longer the one that they followed."""
        self.close_all(1012, "log restarted")

    def close_all(self, code: int, reason: str) -> None:
        """Begin to close every connection that is open."""
        for connection in self._registry.all():
            connection.close(code, reason)

    async def admit(self, head: Head, peer: str) -> Entry:
        """Look at a request for a socket, and return what is to become of it; for `upgrade`.

        Args:
            head: the request; its path and that it wants a socket have been looked at.
            peer: the address that it came from.
        """
        begun = self._clock()
        try:
            return Entry(head, begun, await read_opening(head, peer, self._admit, self._origins))
        except TaskdError as error:
            return Entry(head, begun, error)

    def upgrade(self, entry: Entry, tail: bytes, transport: asyncio.Transport) -> asyncio.Protocol:
        """Take over the transport of a request for a socket.

        The answer, 101 or a refusal, is sent before this returns, and the transport's protocol is the one that is
        returned. The caller must not use the transport any more.

        Args:
            entry: of `admit`.
            tail: what was read behind the request's head.
            transport: to whoever sent it.
        """
        head, begun, opening = entry
        request = request_id_of(head.get(b"x-request-id"))
        if transport.is_closing():
            # Nobody would tell of its end any more.
            return asyncio.Protocol()
        try:
            if not self._running:
                raise Unavailable("the server is not taking connections now")
            if len(self._registry) >= self._most:
                raise Unavailable("there are too many connections now")
            if isinstance(opening, TaskdError):
                raise opening
            protocol = accept(head.raw, request)
        except (TaskdError, Refusal) as error:
            refused = self._refuse(refusal(error, request), transport)
            self._answered(status_of(error), begun)
            return refused
        connection = Connection(transport, protocol, self, opening.user, opening.client)
        self._sockets.add(connection)
        connection.release = self._hold(opening.user, lambda: connection.close(4003, "token revoked"))
        displaced = self._registry.register(connection)
        self.opened += 1
        self._pings.start(connection, self._clock())
        self._arm()
        connection.begin()
        self._answered(101, begun)
        if displaced is not None:
            displaced.member.close(displaced.code, displaced.reason)
        self._greet(connection, opening.after)
        if tail:
            connection.data_received(tail)
        return connection

    def tick(self) -> None:
        """Do what is due: send pings, close those whose pong is missing, drop those that do not end."""
        now = self._clock()
        for connection in self._pings.pop_due(now):
            connection.ping()
            self._pongs.start(connection, now)
            self._pings.start(connection, now)
        for connection in self._pongs.pop_due(now):
            connection.close(1013, "no pong")
        for connection in self._messages.pop_due(now):
            connection.fail(1008, "the message took too long")
        for socket in self._closing.pop_due(now):
            socket.abort()

    # What connections tell.

    def ponged(self, connection: Connection) -> None:
        """It lives."""
        self._pongs.drop(connection)

    def unsent(self, connection: Connection, size: int) -> None:
        """So many bytes wait for it to take them."""
        for other in self._unsent.hold(connection, size):
            other.drop()

    def unread(self, connection: Connection, size: int) -> None:
        """So many bytes of a message of its are here, and it is not whole."""
        if not size:
            self._messages.drop(connection)
        elif connection not in self._messages:
            self._messages.start(connection, self._clock())
        for other in self._unread.hold(connection, size):
            other.fail(1013, "too many messages are on their way")

    def ending(self, connection: Connection) -> None:
        """It takes no more events; its successor, if it has one, stays."""
        connection.release()
        self._registry.unregister(connection)
        self._pings.drop(connection)
        self._pongs.drop(connection)
        self.unread(connection, 0)
        self.closed[connection.cause] += 1
        self._wait_for_end(connection)

    def lost(self, connection: Connection) -> None:
        """Its transport is gone."""
        self._unsent.hold(connection, 0)
        self.forget(connection)

    def forget(self, socket: Abortable) -> None:
        """Hold a socket no longer, since its transport is gone."""
        self._closing.drop(socket)
        self._sockets.discard(socket)
        if not self._sockets and self._emptied is not None:
            self._emptied.set()

    # How it does it.

    def _answered(self, status: int, begun: float) -> None:
        self._catalog.http_requests.labels("GET", SOCKET_PATH, str(status)).inc()
        self._catalog.http_seconds.labels("GET", SOCKET_PATH).observe(self._clock() - begun)

    def _refuse(self, answer: bytes, transport: asyncio.Transport) -> asyncio.Protocol:
        self.refused += 1
        refused = Refused(self.forget, transport)
        self._sockets.add(refused)
        self._wait_for_end(refused)
        refused.begin(answer)
        return refused

    def _greet(self, connection: Connection, after: str | None) -> None:
        if after is None:
            # Nothing to read, so it is live at once and needs no task.
            position = self._feed.position
            connection.go_live(position)
            connection.greet(self._feed.cursor(position), None)
        else:
            try:
                connection.resuming = self._supervisor.spawn(self._resume(connection, after), "ws-resume")
            except Unavailable as error:
                connection.close(1013, str(error), "unavailable")

    async def _resume(self, connection: Connection, after: str) -> None:
        resumer = Resumer(self._feed, connection, self._pause)
        try:
            await resumer.run(after)
        finally:
            self.events_sent += resumer.sent
            connection.resuming = None

    def _on_events(self, events: Sequence[Event]) -> None:
        if not len(self._registry) or not events:
            return
        batch = Batch.of(self._feed, events)
        parts = batch.by_owner()
        for owner, part in parts.items():
            # Copies, because who is too far behind is closed and leaves meanwhile.
            for connection in tuple(self._registry.of_owner(owner)):
                if not connection.sees_all:
                    connection.deliver(part)
        for connection in tuple(self._registry.seeing_all()):
            connection.deliver(batch)
        # With one owner in it, the batch is its own only part.
        for told in {id(one): one for one in (batch, *parts.values())}.values():
            self._measure(told)

    def _measure(self, batch: Batch) -> None:
        for event, some in zip(batch.events, batch.told, strict=True):
            number = batch.told_all + some
            if number:
                self.events_sent += number
                self._delivery.observe(self._feed.age(event.at), number)

    def _wait_for_end(self, socket: Abortable) -> None:
        self._closing.start(socket, self._clock())
        if len(self._closing) > self._most_closing:
            self._closing.pop_first().abort()
        self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.tick()
        if self._sockets:
            self._arm()


def _nothing() -> None:
    """Stands for the end of a subscription that there is not."""
