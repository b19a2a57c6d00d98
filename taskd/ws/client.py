"""The client's end of a WebSocket, for the programs that measure or watch a server: messages in, a close code at last.

The protocol is that of `websockets`; this is its glue to asyncio. Pings are answered by it, and nothing is compressed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import parse_uri

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of one message: an event holds a task, and that a payload and a result."""


class SocketRefused(Exception):
    """The server answered a handshake with something else than 101; `status` is None when it was no HTTP."""

    def __init__(self, status: int | None, body: bytes = b"") -> None:
        super().__init__(f"the handshake was answered with {status or 'no HTTP'}")
        self.status = status
        self.body = body


class ClientSocket(asyncio.Protocol):
    """One WebSocket to a server; see `connect`.

    Args:
        url: `ws://…` or `wss://…`.
        headers: of the handshake.
        on_text: called with each text message, in UTF-8.
    """

    def __init__(self, url: str, headers: Mapping[str, str], on_text: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done when messages can be sent; raises `SocketRefused`, or `ConnectionError`."""
        self.closed: asyncio.Future[int | None] = loop.create_future()
        """Done when the connection is gone; the server's close code, None without one."""
        self._on_text = on_text
        self._headers = headers
        self._protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE)
        self._transport: asyncio.Transport
        self._message = b""

    def send(self, text: str) -> None:
        """Send a text message; nothing once it is closed."""
        if self._protocol.state is OPEN:
            self._protocol.send_text(text.encode())
            self._flush()

    def close(self) -> None:
        """Begin to close it. Safe twice."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._flush()

    def abort(self) -> None:
        """Drop it."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = transport  # type: ignore[assignment]
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._answered(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            fault = self._protocol.handshake_exc
            gone = ConnectionResetError("the connection was lost before the handshake was answered")
            self.opened.set_exception(gone if fault is None else SocketRefused(None))
        if not self.closed.done():
            received = self._protocol.close_rcvd
            self.closed.set_result(None if received is None else received.code)

    def _answered(self, response: Response) -> None:
        if self.opened.done():
            return
        if self._protocol.handshake_exc is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(SocketRefused(response.status_code, bytes(response.body or b"")))

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.CONT:
            self._message += frame.data
            if frame.fin:
                message, self._message = self._message, b""
                self._on_text(message)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()


async def connect(
    url: str,
    host: str,
    port: int,
    headers: Mapping[str, str],
    on_text: Callable[[bytes], None],
    context: ssl.SSLContext | None = None,
) -> ClientSocket:
    """Open a WebSocket.

    Raises:
        SocketRefused: the server does not want it.
        OSError: there is no server, or it is gone.
    """
    loop = asyncio.get_running_loop()
    name = host if context is not None else None
    _, socket = await loop.create_connection(
        lambda: ClientSocket(url, headers, on_text), host, port, ssl=context, server_hostname=name
    )
    try:
        await socket.opened
    except BaseException:
        socket.abort()
        raise
    return socket
