"""A connection before it is one: its TLS handshake.

asyncio can do the handshakes of a listening socket by itself, and tells of each connection when that is done. Those
that never do it would be in no limit. So a connection is taken as it comes, counts as one that has asked nothing yet,
and makes room like any other. Each handshake shows the certificate as it is by then.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from taskd.runtime.descriptors import reset
from taskd.tls import Tls
from taskd.web.host import Host


class Handshake(asyncio.Protocol):
    """One client's connection until its handshake is done; then it is `connection`'s.

    Args:
        server: it is one of its connections meanwhile.
        tls: the certificate that is shown.
        connection: what it becomes.
    """

    def __init__(self, server: Host[Any], tls: Tls, connection: asyncio.Protocol) -> None:
        self.deadline: float | None = None
        """When `expire` is due, by the server's clock."""
        self._server = server
        self._tls = tls
        self._connection = connection
        self._transport: asyncio.Transport
        self._shaking: asyncio.Task[None] | None = None
        self._early = b""
        """What came with the end of the handshake."""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = transport = cast(asyncio.Transport, transport)
        # What comes is for the handshake.
        transport.pause_reading()
        self._server.opened(self)
        if transport.is_closing():
            return
        self._server.fresh[self] = None
        self.deadline = self._server.clock() + self._server.times.head
        self._shaking = self._server.supervisor.spawn(self._shake(transport), "tls handshake")

    def data_received(self, data: bytes) -> None:
        self._early += data

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self)

    async def _shake(self, transport: asyncio.Transport) -> None:
        loop, times = asyncio.get_running_loop(), self._server.times
        try:
            secured = await loop.start_tls(
                transport,
                # Not yet the connection: it may be told of data before this returns.
                self,
                self._tls.context,
                server_side=True,
                # Its deadline is another one, by the server's clock.
                ssl_handshake_timeout=10 * times.head,
                ssl_shutdown_timeout=times.linger,
            )
        except (OSError, asyncio.CancelledError):
            # What comes is no TLS, or of an old version, or without the certificate that is asked for.
            secured = None
        self.deadline = None
        self._server.closed(self)
        if secured is None or secured.is_closing():
            transport.abort()
            return
        secured.set_protocol(self._connection)
        self._connection.connection_made(secured)
        if self._early:
            self._connection.data_received(self._early)
        if self._ended:
            self._connection.eof_received()

    def expire(self) -> None:
        """The deadline has passed."""
        self.drop()

    def drain(self) -> None:
        """Take no request."""
        self.drop()

    def end_stream(self) -> None:
        """There is none."""

    def drop(self) -> None:
        """Drop the client."""
        self.deadline = None
        if self._shaking is not None:
            self._shaking.cancel()
        reset(self._transport)

    def abort(self) -> None:
        """Drop the connection."""
        self.drop()
