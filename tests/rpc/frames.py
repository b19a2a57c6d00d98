"""As much of HTTP/2 as it takes to send what no client would (RFC 9113)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4
EMPTY = b"\0\0\0\0\0"
"""A message of no bytes (gRPC over HTTP/2, "Length-Prefixed-Message")."""

WITHIN = 30.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame (4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def call(path: bytes, *metadata: tuple[bytes, bytes], stream: int = 1) -> bytes:
    """Return a gRPC call as frames; names and values are literal (RFC 7541 6.2.2), so any bytes go."""
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *metadata,
    ]  # fmt: skip
    block = b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, EMPTY)


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

    async def until(self, kind: int) -> bytes:
        """Return the payload of the next frame of a kind."""
        while True:
            found, _, payload = await self.frame()
            if found == kind:
                return payload

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        async with asyncio.timeout(WITHIN):
            return await self._reader.read()


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
