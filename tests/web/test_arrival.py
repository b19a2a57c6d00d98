"""Connections before they are any: until their TLS handshake is done, or fails, or never comes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Any, ClassVar

import pytest

from taskd.tls import Tls
from taskd.web.arrival import Arrival
from taskd.web.connection import Connection
from taskd.web.listening import Listener
from tests.access.certificates import Authority
from tests.waiting import eventually
from tests.web.serving import Serving, request, serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def status_line(found: Serving, authority: Authority) -> bytes:
    """Return the first line of an answer by TLS."""
    host, port = str(found.server.address).rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=authority.context())
    writer.write(request("GET", "/", Connection="close"))
    line = await reader.readline()
    writer.transport.abort()
    return line


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff\x01", b"\xff" * 5000],
    ids=["no TLS", "too long", "noise"],
)
async def test_what_is_no_handshake_is_dropped_and_forgotten(authority: Authority, garbage: bytes) -> None:
    async with serving(tls=Tls(*authority.sign("server"))) as found:
        client = await found.client()
        await eventually(lambda: found.server.connections == 1)
        client.send(garbage)
        with contextlib.suppress(ConnectionError):
            # An alert may be told first (RFC 8446 6.2).
            assert b"HTTP" not in await client.rest()
        await eventually(lambda: found.server.connections == 0)
        assert not found.server.fresh
        assert await status_line(found, authority) == b"HTTP/1.1 200 OK\r\n"


async def test_a_drain_does_not_wait_for_handshakes(authority: Authority) -> None:
    async with serving(tls=Tls(*authority.sign("server"))) as found:
        clients = [await found.client() for _ in range(3)]
        await eventually(lambda: found.server.connections == 3)
        await found.server.stop_accepting()
        await found.server.drain(60)
        assert found.server.connections == 0
        for client in clients:
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""


async def test_one_that_has_just_failed_can_still_be_dropped(authority: Authority) -> None:
    tls = Tls(*authority.sign("server"))
    async with serving(tls=tls) as found:
        here, there = socket.socketpair()
        here.setblocking(False)
        arrival = Arrival(found.server, here, tls, lambda arrived: Connection(found.server, arrived))
        arrival.begin()
        assert found.server.connections == 1
        here.close()
        arrival.drop()
        await eventually(lambda: found.server.connections == 0)
        there.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"], ids=["silent", "asks"])
@pytest.mark.parametrize("how", ["drop", "drain", "abort"])
async def test_one_that_is_dropped_at_any_moment_leaves_nothing(
    how: str, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as found:
        for turns in range(12):
            here, there = socket.socketpair()
            there.send(said)
            here.setblocking(False)
            Arrival(found.server, here, None, lambda arrived: Connection(found.server, arrived)).begin()
            for _ in range(turns):
                await asyncio.sleep(0)
            for one in tuple(found.server._connections):
                getattr(one, how)()
            there.close()
            await eventually(lambda: found.server.connections == 0)
        assert not found.server.fresh
    assert not caplog.records


async def test_an_error_of_one_connection_is_no_other_ones(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(socket.socket):
        errors: ClassVar[list[int]] = [errno.EPROTO, errno.ENETDOWN, errno.EPERM]

        def accept(self) -> tuple[socket.socket, Any]:
            if self.errors:
                raise OSError(self.errors.pop(), "of one that is gone")
            return super().accept()

    taken: list[socket.socket] = []
    with Failing() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        listener = Listener(listening, taken.append, lambda: None, 8)
        listener.start()
        client.connect(listening.getsockname())
        await eventually(lambda: bool(taken))
        listener.close()
        taken[0].close()
    assert not Failing.errors
    assert not caplog.records
