"""As much of HTTP/2 as it takes to send what no client would (RFC 9113)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
NO_WINDOW = PREFACE + b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0"
"""A beginning after which nothing may be sent on a stream (SETTINGS_INITIAL_WINDOW_SIZE, 6.5.2)."""
EMPTY = b"\0\0\0\0\0"
"""A message of no bytes (gRPC over HTTP/2, "Length-Prefixed-Message")."""

WITHIN = 30.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame (4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def call(path: bytes, *metadata: tuple[bytes, bytes], stream: int = 1, message: bytes = EMPTY) -> bytes:
    """Return a gRPC call as frames."""
    return begin(path, *metadata, stream=stream) + frame(DATA, END_STREAM, stream, message)


def begin(path: bytes, *metadata: tuple[bytes, bytes], stream: int = 1) -> bytes:
    """Return the first frame of a call; names and values are literal (RFC 7541 6.2.2), so any bytes go."""
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *metadata,
    ]  # fmt: skip
    block = b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)
    return frame(HEADERS, END_HEADERS, stream, block)


class Raw:
    """A connection whose frames are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def frame(self) -> tuple[int, int, bytes]:
        """Return the next frame's kind, stream and payload."""
        async with asyncio.timeout(WITHIN):
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], int.from_bytes(head[5:], "big"), payload

    async def answering(self) -> tuple[int, int, bytes]:
        """Return the next frame; pings and settings are answered first (6.7, 6.5.3), as they must be."""
        kind, stream, payload = await self.frame()
        if kind == PING:
            self.writer.write(frame(PING, 1, 0, payload))
        elif kind == SETTINGS and payload:
            self.writer.write(frame(SETTINGS, 1, 0, b""))
        return kind, stream, payload

    async def until(self, kind: int) -> bytes:
        """Return the payload of the next frame of a kind."""
        while True:
            found, _, payload = await self.frame()
            if found == kind:
                return payload

    async def some(self) -> bytes:
        """Return some bytes; none when the server has closed."""
        return await self._reader.read(65536)

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        async with asyncio.timeout(WITHIN):
            return await self._reader.read()

    async def closed(self) -> None:
        """Wait until the server has closed, though it can tell that somebody is there."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(WITHIN):
                while True:
                    await self.answering()


@contextlib.asynccontextmanager
async def connected(address: str, first: bytes = PREFACE + frame(SETTINGS, 0, 0, b"")) -> AsyncIterator[Raw]:
    """Open a connection, and send what it begins with."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = Raw(reader, writer)
    try:
        await raw.send(first)
        yield raw
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
