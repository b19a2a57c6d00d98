"""One connection: order, bounds, deadlines, refusals and its end."""

from __future__ import annotations

import asyncio

import pytest

from taskd.http1.limits import Limits
from taskd.web import connection as module
from taskd.web.message import Answer, Request, Response, Sink, Stream
from tests.waiting import eventually
from tests.web.serving import Held, request, serving

GET = request("GET", "/")


async def target(request: Request) -> Answer:
    return Response(200, request.head.target, "text/plain")


async def test_a_body_comes_back_and_the_connection_stays() -> None:
    async with serving() as found:
        client = await found.client()
        for body in (b"one", b"", b"x" * 300_000):
            got = await client.ask("POST", "/", body)
            assert (got.status, got.body, got.get("Connection")) == (200, body, None)
        assert found.server.connections == 1


async def test_a_request_may_come_byte_by_byte() -> None:
    async with serving() as found:
        client = await found.client()
        for byte in request("POST", "/", b"body"):
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer()).body == b"body"


async def test_a_chunked_body_is_joined() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"abcde"


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    busy = most = 0

    async def handle(request: Request) -> Answer:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        # A later one would overtake an earlier one if it could.
        for _ in range(20 - int(request.head.target[1:])):
            await asyncio.sleep(0)
        busy -= 1
        return await target(request)

    async with serving(handle) as found:
        client = await found.client()
        client.send(b"".join(request("GET", f"/{n}") for n in range(20)))
        assert [(await client.answer()).body for _ in range(20)] == [f"/{n}".encode() for n in range(20)]
        assert most == 1


async def test_what_is_read_while_an_answer_is_due_is_bounded() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        connection = found.connection
        large = request("GET", "/", Padding="x" * 4000)
        count = 8 * 2**20 // len(large)
        client.send(large * count)
        await eventually(lambda: not connection._transport.is_reading())
        assert held.begun == 1
        assert len(connection._held) < module.READ_AHEAD + 300_000
        # Also once answers flow: each lets in no more than was taken.
        most = 0
        held.go.set()
        for _ in range(1 + count):
            await client.answer()
            most = max(most, len(connection._held) + len(connection._parser._buffer))
        assert most < 2 * (module.READ_AHEAD + 300_000)
        # And then it is read on.
        assert (await client.ask("GET", "/")).status == 200


async def test_reading_goes_on_when_all_that_was_held_back_came_as_whole_requests() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        large = request("GET", "/", Padding="x" * 4000)
        count = module.READ_AHEAD // len(large) + 2
        client.send(large * count)
        await eventually(lambda: len(found.connection._held) == count * len(large))
        assert not found.connection._transport.is_reading()
        held.go.set()
        for _ in range(1 + count):
            await client.answer()
        assert (await client.ask("GET", "/")).status == 200


async def test_no_request_is_begun_before_the_client_takes_the_last_answer() -> None:
    begun = 0

    async def handle(request: Request) -> Answer:
        nonlocal begun
        begun += 1
        return Response(200, bytes(64 * 2**20), "text/plain")

    async with serving(handle) as found:
        client = await found.client(limit=1024)
        client.send(GET * 2)
        await eventually(lambda: found.server.connections and found.connection._writable is not None)
        assert begun == 1
        assert [len((await client.answer()).body) for _ in range(2)] == [64 * 2**20] * 2
        assert begun == 2


@pytest.mark.parametrize("streams", [False, True])
async def test_answers_without_a_body_wait_for_their_client_too(streams: bool) -> None:
    begun = 0
    padding = [("X-Padding", "x" * 60_000)]

    async def run(sink: Sink) -> None: ...

    async def handle(request: Request) -> Answer:
        nonlocal begun
        begun += 1
        return Stream(run, "text/plain", padding) if streams else Response(200, b"body", "text/plain", padding)

    async with serving(handle) as found:
        client = await found.client(limit=100_000)
        client.send(request("HEAD", "/") * 1000)
        await eventually(lambda: found.server.connections and found.connection._writable is not None)
        for _ in range(10_000):
            await asyncio.sleep(0)
        assert begun < 1000
        assert [(await client.answer(head=True)).status for _ in range(1000)] == [200] * 1000
        assert begun == 1000


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
    ],
)
async def test_who_wants_no_more_is_told_goodbye(head: bytes, connection: str) -> None:
    async with serving(target) as found:
        client = await found.client()
        client.send(head)
        assert (await client.answer()).get("Connection") == connection
        assert await client.rest() == b""
        await eventually(lambda: found.server.connections == 0)


async def test_http_1_0_keeps_the_connection_if_asked() -> None:
    async with serving(target) as found:
        client = await found.client()
        for _ in range(2):
            client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            got = await client.answer()
            assert (got.get("Connection"), got.body) == ("keep-alive", b"/a")


async def test_head_gets_the_fields_and_no_body() -> None:
    async with serving(target) as found:
        client = await found.client()
        client.send(request("HEAD", "/path") + GET)
        got = await client.answer(head=True)
        assert (got.get("Content-Length"), got.get("Content-Type")) == ("5", "text/plain")
        assert (await client.answer()).body == b"/"


@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body_and_no_length(status: int) -> None:
    async def handle(request: Request) -> Answer:
        return Response(status, headers=[("ETag", '"1"')])

    async with serving(handle) as found:
        client = await found.client()
        client.send(GET * 2)
        for _ in range(2):
            got = await client.answer()
            assert (got.status, got.get("Content-Length"), got.get("ETag")) == (status, None, '"1"')


async def test_who_waits_for_100_continue_gets_it() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head()).status == 100
        client.send(b"ok")
        assert (await client.answer()).body == b"ok"


async def test_a_body_too_large_is_refused_without_100() -> None:
    async with serving(limits=Limits(body=10)) as found:
        client = await found.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_cannot_be_read_is_refused_as_a_problem_and_ends(data: bytes, status: int) -> None:
    async with serving() as found:
        client = await found.client()
        client.send(GET + data + GET)
        assert (await client.answer()).status == 200
        got = await client.answer()
        assert (got.status, got.get("Connection")) == (status, "close")
        assert got.get("Content-Type") == "application/problem+json"
        assert got.json()["status"] == status
        assert got.json()["request_id"] == got.get("X-Request-Id")
        # Nothing behind it is answered.
        assert await client.rest() == b""


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nX-Request-Id: mine\r\n\r\n")
        client.send(bytes(9_999_999))
        assert (await client.answer()).status == 413
        await client.writer.drain()
        client.writer.write_eof()
        assert await client.rest() == b""
        await eventually(lambda: found.server.connections == 0)


async def test_a_half_closed_client_still_gets_all_its_answers() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(request("GET", "/1"))
        await asyncio.wait_for(held.asked.wait(), 20)
        client.send(request("GET", "/2"))
        client.writer.write_eof()
        held.go.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"/1", b"/2"]
        assert await client.rest() == b""


async def test_the_end_within_a_request_behind_an_answer_is_refused_at_once() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(GET)
        await asyncio.wait_for(held.asked.wait(), 20)
        client.send(b"GET / HT")
        client.writer.write_eof()
        await eventually(lambda: found.connection._ended)
        held.go.set()
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        assert await client.rest() == b""
        await eventually(lambda: found.server.connections == 0)


async def test_the_end_within_a_request_is_refused_at_once() -> None:
    async with serving() as found:
        client = await found.client()
        client.send(request("POST", "/", b"12345")[:-1])
        client.writer.write_eof()
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
        await eventually(lambda: found.server.connections == 0)


async def test_a_change_that_has_begun_is_made_though_its_client_is_gone() -> None:
    held = Held()
    async with serving(held) as found:
        client = await found.client()
        client.send(request("POST", "/", b"{}"))
        await asyncio.wait_for(held.asked.wait(), 20)
        client.vanish()
        await eventually(lambda: found.server.connections == 0)
        assert held.done == 0
        held.go.set()
        await eventually(lambda: held.done == 1)
