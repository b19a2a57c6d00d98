"""The floor of any HTTP server in Python: an `asyncio.Protocol` on uvloop that writes a constant to whatever comes.

    python -m bench.peers.floor_http PORT BYTES
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Constant(asyncio.Protocol):
    """Answers each read that ends a head."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def data_received(self, data: bytes) -> None:
        self._write(self.answer)


async def serve(port: int, size: int) -> None:
    body = b"x" * size
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    Constant.answer = head + body
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
