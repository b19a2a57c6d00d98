"""A connection before it is one: its TLS handshake, if there is one.

An event loop tells of a connection when its handshake is done. Those that never do it would be in no limit. So a
connection counts from when it is accepted, as one that has asked nothing yet, and makes room like any other. Each
handshake shows the certificate as it is by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from taskd.runtime.descriptors import reset_at_close
from taskd.tls import Tls
from taskd.web.host import Host


class Arrival:
    """One client that has connected, until its connection can be used.

    Args:
        server: it is one of its connections meanwhile.
        accepted: the socket, which does not block.
        tls: the certificate that is shown; None: no TLS.
        make: makes the connection, which calls its argument once it is one. It may be told twice that it is lost.
    """

    def __init__(
        self,
        server: Host[Any],
        accepted: socket.socket,
        tls: Tls | None,
        make: Callable[[Callable[[], None]], asyncio.Protocol],
    ) -> None:
        self.deadline: float | None = None
        """When `expire` is due, by the server's clock."""
        self._server = server
        self._accepted = accepted
        self._tls = tls
        self._make = make
        self._arriving: asyncio.Task[None] | None = None
        self._has_arrived = False

    def begin(self) -> None:
        """Come in, unless there is no room."""
        self._server.opened(self)
        if self._accepted.fileno() < 0:
            return
        self._server.fresh[self] = None
        self.deadline = self._server.clock() + self._server.times.head
        self._arriving = self._server.supervisor.spawn(self._arrive(), "http arrival")
        # Also of one that was cancelled before it began.
        self._arriving.add_done_callback(self._ended)

    async def _arrive(self) -> None:
        times = self._server.times
        tls: dict[str, Any] = {}
        if self._tls is not None:
            # Its deadline is another one, by the server's clock.
            within = 10 * times.head
            tls = {"ssl": self._tls.context, "ssl_handshake_timeout": within, "ssl_shutdown_timeout": times.linger}
        loop, made = asyncio.get_running_loop(), self._make(self._leave)
        try:
            # What comes may be no TLS, or of an old version, or without the certificate that is asked for; or nothing.
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(lambda: made, self._accepted, **tls)
                self._has_arrived = True
        finally:
            if not self._has_arrived:
                # When it is dropped in this very moment, it may be made all the same; uvloop never tells it of its end.
                made.connection_lost(None)

    def _ended(self, _: object) -> None:
        if not self._has_arrived:
            self._leave()
            self._accepted.close()

    def _leave(self) -> None:
        self.deadline = None
        self._server.closed(self)

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
        if self._arriving is None:
            self._accepted.close()
            return
        # It is closed already when the handshake has just failed.
        with contextlib.suppress(OSError):
            reset_at_close(self._accepted)
        self._arriving.cancel()

    def abort(self) -> None:
        """Drop the connection."""
        self.drop()
