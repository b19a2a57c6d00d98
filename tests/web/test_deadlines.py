"""How long a client may take, by a clock that stands still."""

from __future__ import annotations

import asyncio

import pytest

from taskd.web.host import Phase, Times
from taskd.web.message import Answer, Request, Response
from tests.waiting import eventually
from tests.web.serving import Held, request, serving

GET = request("GET", "/")


async def test_who_neither_reads_nor_goes_after_a_refusal_is_dropped() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        assert found.connection.phase is Phase.LINGER
        found.advance(4.9)
        assert found.server.connections == 1
        found.advance(0.2)
        await eventually(lambda: found.server.connections == 0)


@pytest.mark.parametrize(
    ("sent", "more", "seconds"), [(b"GET / HT", b"TP", 10), (request("POST", "/", b"12345")[:-2], b"4", 30)]
)
async def test_who_is_too_slow_gets_408(sent: bytes, more: bytes, seconds: float) -> None:
    async with serving() as found:
        client = await found.client()
        client.send(sent)
        await eventually(lambda: found.server.connections and found.connection.phase in (Phase.HEAD, Phase.BODY))
        found.advance(seconds - 0.1)
        # A byte more is no excuse.
        client.send(more)
        received = found.connection._parser._buffer if seconds == 10 else found.connection._body
        await eventually(lambda: received.endswith(more))
        found.advance(0.1)
        got = await client.answer()
        assert (got.status, got.get("Connection")) == (408, "close")
        assert await client.rest() == b""


async def test_who_begins_a_request_while_an_answer_is_due_has_the_time_of_a_head_after_it() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        client.send(b"GET / HT")
        await eventually(lambda: found.connection._held)
        held.go.set()
        await client.answer()
        found.advance(10)
        assert (await client.answer()).status == 408


async def test_a_linger_is_as_long_as_it_is_whatever_was_sent_before() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        found.connection._unsent = 1000
        found.advance(5)
        await eventually(lambda: found.server.connections == 0)


async def test_times_are_what_they_are_set_to() -> None:
    async with serving(times=Times(head=1)) as found:
        client = await found.client()
        client.send(b"G")
        await eventually(lambda: found.server.connections and found.connection.phase is Phase.HEAD)
        found.advance(1)
        assert (await client.answer()).status == 408


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving() as found:
        fresh, used = await found.client(), await found.client()
        await used.ask("GET", "/")
        await eventually(lambda: found.server.connections == 2)
        found.advance(74)
        assert found.server.connections == 2
        found.advance(1)
        assert (await fresh.rest(), await used.rest()) == (b"", b"")


async def test_an_answer_may_take_longer_than_all_deadlines() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        found.advance(10_000)
        held.go.set()
        assert (await client.answer()).status == 200


async def test_who_takes_nothing_of_an_answer_is_dropped_who_is_slow_is_not() -> None:
    async def handle(request: Request) -> Answer:
        return Response(200, bytes(64 * 2**20), "text/plain")

    async with serving(handle) as found:
        client = await found.client(limit=1024)
        client.send(GET)
        await eventually(lambda: found.connection._writable is not None)
        connection = found.connection
        for _ in range(3):
            found.advance(20)
            await client.reader.readexactly(8 * 2**20)
            # With the next piece it has its time anew.
            await eventually(lambda: connection.deadline == found.clock.now + 30)
        assert not connection._transport.is_closing()

        def dropped() -> bool:
            found.advance(30)
            return found.server.connections == 0

        await eventually(dropped)


async def test_a_close_waits_only_so_long_for_a_client_that_takes_nothing() -> None:
    async with serving() as found:
        client = await found.client(limit=1024)
        client.send(request("GET", "/", Connection="close"))
        await client.answer()
        await eventually(lambda: found.server.connections == 0)
        client = await found.client()
        await eventually(lambda: found.server.connections == 1)
        connection = found.connection
        connection._close()
        assert (connection.phase, connection.deadline) == (Phase.CLOSING, found.clock.now + 30)
