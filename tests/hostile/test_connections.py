"""Slow, silent, endless and many: what each kind of HTTP client can take from others; the clock stands still."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
from collections.abc import Callable

import pytest

from taskd.http1.limits import Limits
from taskd.web import server as server_module
from taskd.web.host import Phase
from taskd.web.message import Answer, Request, Response
from tests.waiting import eventually
from tests.web.serving import Client, Held, Serving, request, serving

GET = request("GET", "/")
FEW = 40
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


def descriptors() -> int:
    """Return how many this process has."""
    return len(os.listdir("/proc/self/fd"))


async def crowd(found: Serving, number: int, hello: bytes, limit: int = 1024) -> list[Client]:
    """Connect clients that say something, once all are here."""
    clients = [await found.client(limit=limit) for _ in range(number)]
    await eventually(lambda: found.server.connections >= number)
    for client in clients:
        client.send(hello)
    return clients


async def fine(found: Serving) -> None:
    """See that another is served."""
    assert (await (await found.client()).ask("GET", "/")).status == 200


def all_in(found: Serving, phase: Phase, number: int = FEW) -> Callable[[], bool]:
    return lambda: sum(one.phase is phase for one in found.server._connections) == number


@pytest.mark.parametrize(
    ("hello", "phase", "seconds", "status"),
    [
        (b"", Phase.IDLE, 75, None),
        (HEAD + b"X: ", Phase.HEAD, 10, 408),
        (HEAD + b"Content-Length: 100\r\n\r\nx", Phase.BODY, 30, 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\nx", Phase.BODY, 30, 408),
    ],
    ids=["silent", "head", "body", "chunk"],
)
async def test_all_who_dawdle_are_cut_off_at_their_limit_and_others_are_served(
    hello: bytes, phase: Phase, seconds: float, status: int | None
) -> None:
    async with serving() as found:
        # uvloop opens one for itself at the first connection.
        await fine(found)
        found.advance(75)
        await eventually(lambda: found.server.connections == 0)
        first = found.clients.pop().writer
        first.close()
        await first.wait_closed()
        # What a test before this one left to the collector is none of this one's.
        gc.collect()
        before = descriptors()
        clients = await crowd(found, FEW, hello)
        await eventually(all_in(found, phase))
        for second in range(int(seconds) - 1):
            if hello and second % 5 == 0:
                for client in clients:
                    client.send(b"x")
            found.advance(1)
        await fine(found)
        assert sum(one.phase is phase for one in found.server._connections) >= FEW
        found.advance(1)
        for client in clients:
            rest = await client.rest()
            assert rest.startswith(b"HTTP/1.1 %d " % status if status else b"")
            client.writer.close()
        found.advance(75)
        await eventually(lambda: found.server.connections == 0)
        for client in found.clients:
            client.writer.close()
        await eventually(lambda: descriptors() <= before)
        assert len(found.server.coming) == len(found.server.fresh) == len(found.server.idle) == 0


async def test_those_who_are_due_together_end_a_few_at_a_time() -> None:
    async with serving() as found:
        await crowd(found, FEW, b"G")
        await eventually(all_in(found, Phase.HEAD))
        found.clock.now += 10
        assert found.server.tick(15)
        assert all_in(found, Phase.LINGER, 15)()
        assert found.server.tick(15)
        assert not found.server.tick(15)
        assert all_in(found, Phase.LINGER)()


async def test_who_reads_nothing_holds_a_piece_of_the_answer_and_is_dropped() -> None:
    body = bytes(8 * 2**20)

    async def handle(request: Request) -> Answer:
        return Response(200, body if request.head.target == b"/big" else b"", "text/plain")

    async with serving(handle) as found:
        await crowd(found, FEW, request("GET", "/big") * 100)

        def stuck() -> bool:
            sizes = [one._transport.get_write_buffer_size() for one in found.server._connections]
            return min(sizes) > 0

        await eventually(stuck)
        assert max(one._transport.get_write_buffer_size() for one in found.server._connections) <= 64 * 1024 + 1024
        # Of 320 MiB, and of each client a hundred requests more.
        assert found.server.unsent.held <= server_module.MAX_UNSENT
        await fine(found)

        def dropped() -> bool:
            found.advance(30)
            return found.server.connections <= 1

        await eventually(dropped)
        assert len(found.server.unsent) == 0


async def test_the_longest_stuck_gives_way_when_too_much_is_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_UNSENT", 20 * 2**20)

    async def handle(request: Request) -> Answer:
        return Response(200, bytes(8 * 2**20), "text/plain")

    async with serving(handle) as found:
        clients = []
        for _ in range(3):
            clients.append(await found.client(limit=1024))
            clients[-1].send(GET)
            count = len(clients)
            await eventually(lambda count=count: len(found.server.unsent) == count or found.server.connections < count)
        # Three times eight, less what the kernels hold, which is less than four.
        await eventually(lambda: found.server.connections == 2)
        assert found.server.unsent.held <= 20 * 2**20
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await clients[0].answer()
        assert len((await clients[2].answer()).body) == 8 * 2**20


async def test_the_oldest_gives_way_when_too_much_is_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_COMING", 5 * 2**20)
    async with serving(limits=Limits(body=2**20)) as found:
        hello = HEAD + b"Content-Length: %d\r\n\r\n" % 2**20
        clients = []
        for number in range(8):
            clients.append(await found.client())
            clients[-1].send(hello + bytes(2**20 - 1))
            await eventually(
                lambda number=number: found.server.coming.held > min(number + 1, 4) * (2**20 - 65536) - 65536
                and len(found.server.coming) == min(number + 1, 5)
            )
            assert found.server.coming.held <= 5 * 2**20
        await eventually(lambda: found.server.connections == 5)
        await fine(found)
        for client in clients[-4:]:
            client.send(b"x")
            assert len((await client.answer()).body) == 2**20
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await clients[0].answer()
        assert found.server.bodies == 0


async def test_no_more_bodies_are_worked_on_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_BODIES", 3000)
    held = Held()
    async with serving(held) as found:
        post = request("POST", "/", b"x" * 1000)
        clients = await crowd(found, 4, b"")
        for number, client in enumerate(clients[:3]):
            client.send(post)
            await eventually(lambda number=number: held.begun == number + 1)
        refused = await clients[3].ask("POST", "/", b"x")
        assert (refused.status, refused.get("Retry-After"), refused.get("Connection")) == (503, "1", "close")
        # What has no body is taken.
        other = await found.client()
        other.send(GET)
        await eventually(lambda: held.begun == 4)
        held.go.set()
        for client in [*clients[:3], other]:
            assert (await client.answer()).status == 200
        assert found.server.bodies == 0
        assert (await clients[0].ask("POST", "/", b"x" * 1000)).status == 200


async def test_who_pipelines_without_end_is_answered_in_turn_with_others() -> None:
    asked: list[bytes] = []

    async def handle(request: Request) -> Answer:
        asked.append(request.head.target)
        return Response(200, b"", "text/plain")

    number = 2000
    async with serving(handle) as found:
        greedy, other = await found.client(), await found.client()
        greedy.send(request("GET", "/greedy") * number)
        await eventually(lambda: asked)
        assert (await other.ask("GET", "/other")).status == 200
        # Not behind all of them: one is answered, then it is another's turn.
        assert asked.index(b"/other") < number
        for _ in range(number):
            assert (await greedy.answer()).status == 200
        assert found.server.coming.held == 0


async def test_a_body_that_would_be_large_if_it_was_decoded_is_not_decoded() -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    async with serving(lambda one: _json(one)) as found:
        client = await found.client()
        got = await client.ask("POST", "/", bomb, Content_Type="application/json", Content_Encoding="gzip")
        assert got.body == b"the body must be sent without a content coding"


async def _json(request: Request) -> Answer:
    try:
        return Response(200, repr(request.json()).encode())
    except Exception as error:
        return Response(415, str(error).encode())
