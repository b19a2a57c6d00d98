"""Answers without an end, and connections that become another protocol's."""

from __future__ import annotations

import asyncio
import logging

import pytest

from taskd.http1.head import Head
from taskd.web.message import Answer, Request, Response, Sink, Stream
from taskd.web.upgrade import Upgrade
from tests.waiting import eventually
from tests.web.serving import Held, request, serving

GET = request("GET", "/")


async def target(request: Request) -> Answer:
    return Response(200, request.head.target, "text/plain")


class Endless:
    """A stream that says what it is told until it is ended."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.cancelled = False
        self.size = 5

    async def __call__(self, request: Request) -> Answer:
        return Stream(self.run, "text/plain")

    async def run(self, sink: Sink) -> None:
        try:
            await sink.write(b"hello")
            await sink.write(b"")
            self.began.set()
            while self.size > 5:
                await sink.write(bytes(self.size))
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


@pytest.mark.parametrize("how", ["abort", "eof", "drain", "end"])
async def test_a_stream_ends_with_its_client_or_by_the_server(how: str) -> None:
    stream = Endless()
    async with serving(stream) as found:
        client = await found.client()
        client.send(GET)
        got = await client.head()
        assert (got.get("Transfer-Encoding"), got.get("Content-Length")) == ("chunked", None)
        assert await client.chunk() == b"hello"
        await asyncio.wait_for(stream.began.wait(), 20)
        if how == "abort":
            client.vanish()
        elif how == "eof":
            client.writer.write_eof()
        elif how == "drain":
            await found.server.drain(10)
        else:
            found.server.end_streams()
        await asyncio.wait_for(stream.ended.wait(), 20)
        assert stream.cancelled
        if how != "abort":
            # The body is whole.
            assert await client.rest() == b"0\r\n\r\n"
        await eventually(lambda: found.server.connections == 0)


async def test_a_stream_waits_for_its_client_and_a_stuck_one_is_dropped() -> None:
    stream = Endless()
    stream.size = 2**20
    async with serving(stream) as found:
        client = await found.client(limit=1024)
        client.send(GET)
        await eventually(lambda: found.server.connections and found.connection._writable is not None)
        assert found.connection._transport.get_write_buffer_size() <= 2**20 + 100
        found.advance(30)
        await asyncio.wait_for(stream.ended.wait(), 20)
        await eventually(lambda: found.server.connections == 0)


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    async def run(sink: Sink) -> None:
        await sink.write(b"all")

    async def handle(request: Request) -> Answer:
        return Stream(run, "text/plain")

    async with serving(handle) as found:
        client = await found.client()
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        got = await client.answer()
        assert (got.get("Transfer-Encoding"), got.get("Connection"), got.body) == (None, "close", b"all")
        again = await found.client()
        again.send(GET + request("HEAD", "/") + GET)
        assert (await again.answer()).body == b"all"
        assert (await again.answer(head=True)).get("Transfer-Encoding") == "chunked"
        assert (await again.answer()).body == b"all"


async def test_a_stream_that_fails_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def run(sink: Sink) -> None:
        await sink.write(b"half")
        raise RuntimeError("secret")

    async def handle(request: Request) -> Answer:
        return Stream(run, "text/plain")

    async with serving(handle) as found:
        client = await found.client()
        client.send(GET)
        await client.head()
        assert await client.rest() == b"4\r\nhalf\r\n"
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]
    caplog.clear()


class Shout(asyncio.Protocol):
    """Another protocol: says the tail that it was given, then what comes in, in capitals."""

    def __init__(self, transport: asyncio.Transport, tail: bytes) -> None:
        self.transport = transport
        transport.set_protocol(self)
        transport.resume_reading()
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.data_received(tail)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Upgrades:
    def __init__(self) -> None:
        self.raw: list[bytes] = []

    def wants(self, head: Head) -> bool:
        return head.target.startswith(b"/ws")

    async def admit(self, head: Head, peer: str) -> Upgrade:
        self.raw.append(head.raw)
        return lambda tail, transport: Shout(transport, tail)


UPGRADE = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"}


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind an answer that is due"])
async def test_the_transport_is_handed_over_with_what_came_behind_the_head(behind: bool) -> None:
    upgrades, held = Upgrades(), Held()
    if not behind:
        held.go.set()
    async with serving(held, upgrader=upgrades) as found:
        client = await found.client()
        head = request("GET", "/ws/1", **UPGRADE)
        client.send(GET)
        if behind:
            await asyncio.wait_for(held.asked.wait(), 20)
            client.send(head + b"early" + b"." * 200_000)
            await eventually(lambda: not found.connection._transport.is_reading())
            held.go.set()
        assert (await client.answer()).status == 200
        if not behind:
            client.send(head + b"early" + b"." * 200_000)
        assert (await client.head()).status == 101
        assert await client.reader.readexactly(200_005) == b"EARLY" + b"." * 200_000
        client.send(b"late")
        assert await client.reader.readexactly(4) == b"LATE"
        assert upgrades.raw == [head]
        assert found.server.connections == 0


async def test_what_came_behind_a_head_that_waited_is_handed_over_too() -> None:
    held = Held()
    async with serving(held, upgrader=Upgrades()) as found:
        client = await found.client()
        client.send(GET + request("GET", "/ws", **UPGRADE) + b"one ")
        await asyncio.wait_for(held.asked.wait(), 20)
        client.send(b"two")
        await eventually(lambda: found.connection._held)
        held.go.set()
        assert [(await client.answer()).status, (await client.head()).status] == [200, 101]
        assert await client.reader.readexactly(7) == b"ONE TWO"


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("GET", "/other", UPGRADE),
        ("POST", "/ws", UPGRADE),
        ("GET", "/ws", {"Upgrade": "websocket"}),
        ("GET", "/ws", {"Connection": "upgrade", "Upgrade": "h2c"}),
    ],
)
async def test_what_is_not_taken_over_is_answered_as_any_other(method: str, path: str, fields: dict[str, str]) -> None:
    async with serving(target, upgrader=Upgrades()) as found:
        client = await found.client()
        assert (await client.ask(method, path, **fields)).body == path.encode()
