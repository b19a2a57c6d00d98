"""How answers go out: their bytes, as far as they are made at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from taskd.http1.encode import chunk, response_head
from taskd.http1.head import Head
from taskd.web.message import Response, Stream

PIECE = 64 * 1024
"""Bytes of an answer that are written at once; the transport copies what the client does not take."""


def first_piece(head: Head | None, answer: Response, *, keep_alive: bool) -> bytes:
    """Return the answer's head, and up to `PIECE` bytes of its body.

    Args:
        head: of the request; None if it could not be read.
        keep_alive: whether the connection goes on.
    """
    bodiless = answer.status in (204, 304)
    headers = list(answer.headers)
    if not bodiless:
        # RFC 9110 8.6: neither is there a length in a 204.
        headers += [("Content-Type", answer.media_type), ("Content-Length", str(len(answer.body)))]
    data = response_head(answer.status, [*headers, *_connection(head, keep_alive)], now=time.time())
    if not bodiless and (head is None or head.method != "HEAD"):
        data += answer.body[:PIECE]
    return data


def stream_head(head: Head, answer: Stream, *, keep_alive: bool) -> bytes:
    """Return the head of the answer that a stream is; in chunks if the client knows them (RFC 9112 7.1)."""
    framing = [("Transfer-Encoding", "chunked")] if head.version == (1, 1) else []
    headers = [*answer.headers, ("Content-Type", answer.media_type), *framing]
    return response_head(answer.status, [*headers, *_connection(head, keep_alive)], now=time.time())


def write_pieces(transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
    """Send pieces at once, without a copy of them all where the event loop can do that.

    asyncio's own joins them as well, or, in 3.12.0 to 3.12.8 and 3.13.0 and 3.13.1, never tells that the client takes
    nothing (CPython gh-127655).
    """
    if isinstance(transport, asyncio.Transport):
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)


class StreamSink:
    """Where a stream's handler writes to.

    Args:
        send: sends bytes, and waits while the client is behind.
        chunked: each piece becomes a chunk.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], chunked: bool) -> None:
        self._send = send
        self._chunked = chunked

    async def write(self, data: bytes) -> None:
        """Send bytes; see `message.Sink`."""
        if data:
            await self._send(chunk(data) if self._chunked else data)


def _connection(head: Head | None, keep_alive: bool) -> list[tuple[str, str]]:
    if not keep_alive:
        return [("Connection", "close")]
    # RFC 9112 9.3: a client of HTTP/1.0 keeps the connection only if it is told.
    return [("Connection", "keep-alive")] if head is not None and head.version == (1, 0) else []
