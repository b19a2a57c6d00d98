"""What is left to do for a request for a socket that was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Refused(asyncio.Protocol):
    """Sends the answer to a handshake that failed, and reads on without looking until the client has gone.

    Closing at once could reset the connection before the client has read the answer (RFC 9112 9.6).

    Args:
        gone: called once the client has.
    """

    def __init__(self, gone: Callable[[Refused], None], transport: asyncio.Transport) -> None:
        self._gone = gone
        self._transport = transport

    def begin(self, answer: bytes) -> None:
        """Take over the transport, and send the answer."""
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        self._transport.write(answer)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop the transport."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(self)
