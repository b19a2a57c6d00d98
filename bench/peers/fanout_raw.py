"""The floor of any fan-out in Python: one frame, made before, written to each transport of uvloop.

    python -m bench.peers.fanout_raw PORT BYTES

Nothing is read of what comes: the first of a connection is answered with 101, and all else sets off one event.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar, cast

import uvloop
from websockets.frames import Frame, Opcode

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SAYING = 8
"""Bytes of what sets off an event."""


class Raw(asyncio.Protocol):
    """Writes the event to all."""

    event = b""
    all: ClassVar[set[asyncio.Transport]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._transport in self.all:
            event = self.event
            for _ in range(0, len(data), SAYING):
                for transport in self.all:
                    transport.write(event)
        else:
            self._transport.write(SWITCH)
            self.all.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.all.discard(self._transport)


async def serve(port: int, size: int) -> None:
    Raw.event = Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
    server = await asyncio.get_running_loop().create_server(Raw, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
