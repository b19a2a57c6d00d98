"""The floor of taskd's memory: what it cannot do without, imported, and its servers started; nothing of its own.

    python -m bench.peers.footprint_core PORT GRPC_PORT CONNECTIONS asyncio|uvloop

DATABASE_URL names the database. It serves WebSockets, answers 200 to any other request, serves gRPC's health and
reflection, and keeps so many connections to the database open.
"""

from __future__ import annotations

import asyncio
import http
import os
import sys

import asyncpg
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


def answer(connection: ServerConnection, request: Request) -> Response | None:
    """Answer whoever does not ask for a WebSocket."""
    return None if "Upgrade" in request.headers else connection.respond(http.HTTPStatus.OK, "ok\n")


async def hold(connection: ServerConnection) -> None:
    """Keep a WebSocket until its client goes."""
    await connection.wait_closed()


async def run(port: int, grpc_port: int, connections: int) -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        [health.SERVICE_NAME, reflection.SERVICE_NAME],
        server,
    )
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    url = os.environ["DATABASE_URL"]
    async with asyncpg.create_pool(url, min_size=connections, max_size=connections):
        await server.start()
        async with serve(hold, "127.0.0.1", port, process_request=answer) as sockets:
            await sockets.serve_forever()


if __name__ == "__main__":
    work = run(*map(int, sys.argv[1:4]))
    if sys.argv[4] == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)
