"""What clients may say, in whatever pieces it arrives, and what happens when they say something else."""

import asyncio
import json
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode

from taskd.domain.model import Status
from tests.waiting import eventually
from tests.ws.serving import Serving, closed, make_task, receive, serving

HEAD = (
    b"GET /ws%b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


PING_MESSAGE = masked(Opcode.TEXT, b'{"type":"ping"}')
CLOSE = masked(Opcode.CLOSE, Close(1000, "").serialize())


async def frames(reader: asyncio.StreamReader) -> list[tuple[Opcode, bytes]]:
    """Return the frames up to the end of the stream; the server never masks nor fragments."""
    found = []
    data = await asyncio.wait_for(reader.read(), 20)
    while data:
        opcode, size, start = Opcode(data[0] & 15), data[1], 2
        assert data[0] & 0xF0 == 0x80
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        found.append((opcode, data[start : start + size]))
        data = data[start + size :]
    return found


async def talk(served: Serving, *segments: bytes, query: bytes = b"") -> list[tuple[Opcode, bytes]]:
    """Send segments, each by itself, and return what is answered behind the head of the answer."""
    reader, writer = await served.raw()
    for segment in segments:
        writer.write(segment)
        await writer.drain()
        await asyncio.sleep(0)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    found = await frames(reader)
    writer.close()
    return found


def kinds_of(found: list[tuple[Opcode, bytes]]) -> list[Any]:
    return [json.loads(data)["type"] if opcode is Opcode.TEXT else opcode for opcode, data in found]


@pytest.mark.parametrize("query", [b"", b"?after=%b"])
async def test_frames_in_the_segment_of_the_head_are_read(query: bytes) -> None:
    async with serving() as served:
        head = HEAD % (query and query % served.cursor(0).encode())
        subscribe = masked(Opcode.TEXT, b'{"type":"subscribe"}')
        reader, writer = await served.raw()
        writer.write(head + PING_MESSAGE + subscribe)
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"subscribed")
        writer.write(PING_MESSAGE + CLOSE)
        assert kinds_of(await frames_behind(reader, 2)) == ["pong", Opcode.CLOSE]
        writer.close()


async def frames_behind(reader: asyncio.StreamReader, skip: int) -> list[tuple[Opcode, bytes]]:
    await reader.readexactly(skip)
    return await frames(reader)


async def test_answers_to_messages_before_the_close_come_before_its_answer() -> None:
    async with serving() as served:
        found = await talk(served, HEAD % b"" + PING_MESSAGE + CLOSE + PING_MESSAGE)
        assert kinds_of(found) == ["welcome", "pong", Opcode.CLOSE]
        assert found[-1][1] == Close(1000, "").serialize()


async def test_a_message_may_come_in_single_bytes_and_in_fragments_with_pings_between() -> None:
    stream = (
        masked(Opcode.TEXT, b'{"type"', fin=False)
        + masked(Opcode.CONT, b"", fin=False)
        + masked(Opcode.PING, b"hello")
        + masked(Opcode.CONT, b':"ping"}')
        + CLOSE
    )
    async with serving() as served:
        for segments in ([HEAD % b"" + stream], [HEAD % b"", *(bytes([byte]) for byte in stream)]):
            found = await talk(served, *segments)
            assert sorted(map(str, kinds_of(found))) == sorted(map(str, ["welcome", 10, "pong", 8]))
            assert (Opcode.PONG, b"hello") in found


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("{", "not JSON"),
        ("[]", "message: must be a JSON object"),
        ("{}", "type: must be one of"),
        ('{"type":1}', "type: must be one of"),
        ('{"type":["ping"]}', "type: must be one of"),
        ('{"type":"publish"}', "type: must be one of"),
        ('{"type":"ping","type":"ping"}', "type: "),
        ('{"type":"ping","id":1}', "id: is no field"),
        ('{"type":"subscribe","kind":["a"]}', "kind: is no field"),
        ('{"type":"subscribe","kinds":"a"}', "kinds: must be a list"),
        ('{"type":"subscribe","kinds":["A"]}', "kinds: must match"),
        ('{"type":"subscribe","kinds":null}', "kinds: must be a list"),
        (json.dumps({"type": "subscribe", "kinds": ["a"] * 101}), "kinds: must have 0 to 100"),
        ('{"type":"subscribe","statuses":["gone"]}', "statuses: must be one of"),
        ('{"type":"subscribe","tasks":["1"]}', "tasks: must be a UUID"),
        ('{"type":"subscribe","tasks":[' + "[" * 30_000, ""),
        ('{"\\ud800":1,"type":"ping"}', "ud800"),
        ("", "not JSON"),
    ],
)
async def test_anything_else_is_closed_with_the_fault_named(message: str, says: str) -> None:
    async with serving() as served, served.socket() as socket:
        await socket.send(message)
        code, reason = await closed(socket)
        assert code == 1008
        assert says in (reason or "")
        assert served.hub.closed == {"bad message": 1}


async def test_binary_messages_are_not_read() -> None:
    async with serving() as served, served.socket() as socket:
        await socket.send(b'{"type":"ping"}')
        assert await closed(socket) == (1008, "only text messages are read here")


async def test_a_long_reason_is_cut_between_characters() -> None:
    async with serving() as served, served.socket() as socket:
        await socket.send(json.dumps({"type": "ping", "ü" * 90: 1}, ensure_ascii=False))
        code, reason = await closed(socket)
        assert code == 1008
        assert reason == "ü" * 61


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (masked(Opcode.TEXT, b" " * 65_537), 1009),
        (masked(Opcode.TEXT, b" " * 40_000, fin=False) + masked(Opcode.CONT, b" " * 40_000), 1009),
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b'"\xed\xa0\x80"'), 1007),
        (Frame(Opcode.TEXT, b"{}").serialize(mask=False), 1002),
        (masked(Opcode.CONT, b"x"), 1002),
        (masked(Opcode.TEXT, b"x", fin=False) + masked(Opcode.TEXT, b"x"), 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x88\x81\0\0\0\0\0", 1002),
    ],
)
async def test_a_breach_of_the_protocol_is_closed_with_its_code(stream: bytes, code: int) -> None:
    async with serving() as served:
        found = await talk(served, HEAD % b"" + stream)
        assert kinds_of(found) == ["welcome", Opcode.CLOSE]
        assert Close.parse(found[-1][1]).code == code
        await eventually(lambda: served.hub.sockets == 0)
        assert served.hub.closed == {"bad message": 1}


async def test_too_much_said_before_the_welcome_is_refused() -> None:
    async with serving() as served:
        found = await talk(served, HEAD % (b"?after=" + served.cursor(0).encode()) + PING_MESSAGE * 17)
        assert kinds_of(found) == [Opcode.CLOSE]
        assert Close.parse(found[0][1]).code == 1008


async def test_the_end_of_the_stream_without_a_close_is_an_end() -> None:
    async with serving() as served:
        reader, writer = await served.raw()
        writer.write(HEAD % b"")
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        assert kinds_of(await frames(reader)) == ["welcome"]
        writer.close()
        await eventually(lambda: served.hub.sockets == 0)
        assert served.hub.closed == {"lost": 1}


@pytest.mark.parametrize("flood", [PING_MESSAGE, masked(Opcode.PING, b"x" * 125)])
async def test_who_asks_and_does_not_read_the_answers_is_dropped(flood: bytes) -> None:
    async with serving() as served:
        reader, writer = await served.raw()
        writer.write(HEAD % b"")
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        most = 0
        while not served.hub.closed:
            writer.write(flood * 1000)
            await asyncio.sleep(0)
            most = max([most, *(c.behind for c in served.hub._registry.all())])
        assert served.hub.closed == {"slow consumer": 1}
        assert most <= 2 * 1024 * 1024
        served.advance(5)
        await eventually(lambda: served.hub.sockets == 0)
        writer.transport.abort()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"kinds": [], "statuses": [], "tasks": []}, [1, 2, 3, 4]),
        ({"kinds": ["a"]}, [1, 3]),
        ({"kinds": ["a", "b"], "statuses": ["done"]}, [3, 4]),
        ({"tasks": ["00000000-0000-0000-0000-000000000002"]}, [2]),
        ({"tasks": ["00000000-0000-0000-0000-000000000002"], "kinds": ["a"]}, []),
    ],
)
@pytest.mark.parametrize("live", [True, False])
async def test_a_filter_lets_through_what_it_names(wanted: dict[str, Any], numbers: list[int], live: bool) -> None:
    tasks = [
        make_task(kind="a", number=1),
        make_task(kind="b", number=2),
        make_task(kind="a", number=3, status=Status.DONE),
        make_task(kind="b", number=4, status=Status.DONE),
    ]
    async with serving() as served:
        if not live:
            served.log.write(*tasks)
        query = b"" if live else b"?after=" + served.cursor(0).encode()
        reader, writer = await served.raw()
        writer.write(HEAD % query + masked(Opcode.TEXT, json.dumps({"type": "subscribe"} | wanted).encode()))
        await reader.readuntil(b'{"type":"subscribed"}')
        if live:
            served.log.write(*tasks)
        await eventually(lambda: not served.supervisor._tasks)
        writer.write(CLOSE)
        found = [json.loads(data)["event"]["task"]["id"] for code, data in await frames(reader) if code is Opcode.TEXT]
        assert [int(id_[-2:]) for id_ in found] == numbers
        writer.close()


async def test_a_filter_replaces_the_one_before() -> None:
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        for kinds in (["a"], ["b"]):
            await socket.send(json.dumps({"type": "subscribe", "kinds": kinds}))
            assert await receive(socket) == {"type": "subscribed"}
        served.log.write(make_task(kind="a"), make_task(kind="b", number=2))
        assert (await receive(socket))["event"]["task"]["kind"] == "b"
        await socket.send('{"type":"subscribe"}')
        await receive(socket)
        served.log.write(make_task(kind="a"))
        assert (await receive(socket))["event"]["task"]["kind"] == "a"
