"""The client's end of a WebSocket, against the server of `websockets`."""

from __future__ import annotations

import asyncio
import http

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from taskd.ws.client import ClientSocket, SocketRefused, connect


def port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


async def open_at(server: Server, heard: list[bytes]) -> ClientSocket:
    port = port_of(server)
    return await connect(f"ws://127.0.0.1:{port}/ws?client=c", "127.0.0.1", port, {"X-Who": "ann"}, heard.append)


async def test_messages_come_whole_and_pings_are_answered() -> None:
    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert (connection.request.path, connection.request.headers["X-Who"]) == ("/ws?client=c", "ann")
        assert await connection.recv() == "héllo"
        await connection.send(["in ", "three ", "parts"])
        await (await connection.ping())
        await connection.send("ponged")
        await connection.close(4002, "slow consumer")

    heard: list[bytes] = []
    async with serve(talk, "127.0.0.1", 0) as server, asyncio.timeout(30):
        socket = await open_at(server, heard)
        socket.send("héllo")
        assert await socket.closed == 4002
        assert heard == [b"in three parts", b"ponged"]
        # Nothing is sent to nobody.
        socket.send("more")
        socket.close()


async def test_it_closes_in_order() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def talk(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.put_nowait(connection.close_code)

    async with serve(talk, "127.0.0.1", 0) as server, asyncio.timeout(30):
        socket = await open_at(server, [])
        socket.close()
        socket.close()
        assert await codes.get() == await socket.closed == 1000


async def test_a_server_that_drops_it_gives_no_code() -> None:
    async def talk(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with serve(talk, "127.0.0.1", 0) as server, asyncio.timeout(30):
        socket = await open_at(server, [])
        assert await socket.closed is None


async def test_a_refusal_is_told_with_its_status() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "no")

    async def talk(connection: ServerConnection) -> None: ...

    async with serve(talk, "127.0.0.1", 0, process_request=refuse) as server, asyncio.timeout(30):
        with pytest.raises(SocketRefused, match="403") as error:
            await open_at(server, [])
        assert error.value.status == 403
        port = port_of(server)
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://127.0.0.1:{port}/", "127.0.0.1", port, {}, print)
