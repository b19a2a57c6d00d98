"""websockets: its asyncio server, and `broadcast` to all who are connected (its documentation, "Broadcasting").

    python -m bench.peers.fanout_websockets PORT BYTES

Without compression, which its documentation counsels for many connections: it is at its best. Whatever a client says
sets off one event.
"""

from __future__ import annotations

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

CONNECTIONS: set[ServerConnection] = set()


async def run(port: int, size: int) -> None:
    event = "x" * size

    async def handler(websocket: ServerConnection) -> None:
        CONNECTIONS.add(websocket)
        try:
            async for _ in websocket:
                broadcast(CONNECTIONS, event)
        finally:
            CONNECTIONS.remove(websocket)

    async with serve(handler, "127.0.0.1", port, compression=None, backlog=4096) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2])))
