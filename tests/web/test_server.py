"""The listening socket, the number of connections, and the end."""

from __future__ import annotations

import asyncio
import socket

import pytest

from taskd.errors import StartError
from taskd.runtime.supervisor import Supervisor
from taskd.web.server import HttpServer
from tests.waiting import eventually
from tests.web.serving import Held, echo, request, serving

GET = request("GET", "/")


async def test_a_taken_address_stops_the_start_with_a_line() -> None:
    async with serving() as found:
        assert found.server.address is not None
        port = int(found.server.address.rpartition(":")[2])
        other = HttpServer(echo, Supervisor())
        with pytest.raises(StartError, match=f"can't listen on 127.0.0.1:{port}"):
            await other.start("127.0.0.1", port)
        assert other.address is None
        await other.stop()


async def test_an_ipv6_address_is_in_brackets() -> None:
    server = HttpServer(echo, Supervisor())
    try:
        await server.start("::1", 0)
    except StartError:
        pytest.skip("this machine has no IPv6")
    assert server.address is not None
    assert server.address.startswith("[::1]:")
    await server.stop()


async def test_one_connection_too_many_is_dropped_and_the_others_are_served() -> None:
    held = Held()
    async with serving(held, max_connections=2) as found:
        first, second = await found.client(), await found.client()
        for client in (first, second):
            client.send(GET)
        await eventually(lambda: held.begun == 2)
        third = await found.client()
        third.send(GET)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await third.head()
        assert found.server.connections == 2
        held.go.set()
        for client in (first, second):
            assert (await client.answer()).status == 200
        first.vanish()
        await eventually(lambda: found.server.connections == 1)
        assert (await (await found.client()).ask("GET", "/")).status == 200


async def test_nothing_is_left_of_connections_that_ended() -> None:
    async with serving() as found:
        for number in range(50):
            client = await found.client()
            assert (await client.ask("GET", "/")).status == 200
            if number % 2:
                client.vanish()
            else:
                client.writer.close()
        await eventually(lambda: found.server.connections == 0)
        assert not found.supervisor._tasks


async def test_a_drain_closes_what_is_idle_and_lets_answers_end() -> None:
    held = Held()
    async with serving(held) as found:
        idle, busy = await found.client(), await found.client()
        busy.send(GET + GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        await eventually(lambda: found.server.connections == 2)
        await found.server.stop_accepting()
        drain = asyncio.ensure_future(found.server.drain(20))
        assert await idle.rest() == b""
        assert not drain.done()
        held.go.set()
        got = await busy.answer()
        assert (got.status, got.get("Connection")) == (200, "close")
        # The one behind it is not begun: it can be sent again elsewhere.
        assert await busy.rest() == b""
        await drain
        assert (held.begun, found.server.connections) == (1, 0)
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", found.clients[0].writer.get_extra_info("peername")[1])


async def test_a_request_that_is_being_read_is_still_answered() -> None:
    async with serving() as found:
        client = await found.client()
        whole = request("POST", "/", b"body")
        client.send(whole[:-2])
        await eventually(lambda: found.server.connections and found.connection.phase.name == "BODY")
        drain = asyncio.ensure_future(found.server.drain(20))
        await asyncio.sleep(0)
        client.send(whole[-2:])
        got = await client.answer()
        assert (got.body, got.get("Connection")) == (b"body", "close")
        await drain


async def test_what_does_not_end_in_time_is_dropped() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        await found.server.drain(0)
        assert found.server.connections == 1
        await found.server.stop()
        await eventually(lambda: found.server.connections == 0)
        assert await client.rest() == b""
        assert held.done == 0


async def test_stop_is_safe_twice_and_before_start() -> None:
    server = HttpServer(echo, Supervisor())
    await server.stop()
    await server.start("127.0.0.1", 0)
    assert server.address is not None
    await server.stop()
    await server.stop()
    assert server.address is None


async def test_answers_leave_without_delay() -> None:
    async with serving() as found:
        await (await found.client()).ask("GET", "/")
        server_side = found.connection._transport.get_extra_info("socket")
        assert server_side.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
