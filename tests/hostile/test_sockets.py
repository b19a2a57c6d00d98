"""Slow, silent and many: what each kind of WebSocket client can take from the others."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from websockets.exceptions import InvalidStatus

from taskd.domain.model import Task
from taskd.ws import hub as hub_module
from taskd.ws.wire import PIECE
from tests.waiting import eventually
from tests.ws.player import TEXT, frame
from tests.ws.serving import Serving, closed, make_task, receive, serving
from tests.ws.test_messages import HEAD

MIB = 2**20


async def silent(served: Serving, number: int, user: str = "ann") -> list[asyncio.StreamWriter]:
    """Connect clients that read the head of the answer and then nothing; the kernel takes little for them."""
    writers = []
    for n in range(number):
        before = served.hub.connections
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(HEAD % b"?user=%b&client=s%d" % (user.encode(), n))
        await eventually(lambda before=before: served.hub.connections == before + 1)
        writers.append(writer)
        del reader
    return writers


def leave(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()


def large(number: int, size: int = MIB // 4) -> Task:
    """Return a task whose event is of about `size` bytes."""
    return make_task("ann", number=number, description="x" * size)


async def test_beyond_the_most_a_handshake_is_refused_and_those_who_are_here_are_served() -> None:
    async with serving(most=3) as run, run.socket("ann") as ann, run.socket("bob") as bob, run.socket("eve"):
        with pytest.raises(InvalidStatus, match="503"):
            await run.socket("dan")
        await receive(ann)
        run.log.write(make_task("ann"))
        assert (await receive(ann))["type"] == "event"
        await bob.close()
        await eventually(lambda: run.hub.connections == 2)
        async with run.socket("dan") as dan:
            assert (await receive(dan))["type"] == "welcome"


async def test_no_more_is_kept_for_those_who_read_nothing_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "MAX_UNSENT", 4 * MIB)
    async with serving(per_user=100) as served:
        writers = await silent(served, 10)
        async with served.socket("ann", client="good") as good:
            await receive(good)
            for number in range(1, 60):
                served.log.write(large(number))
                assert (await receive(good))["type"] == "event"
                assert served.hub._unsent.held <= 4 * MIB + MIB // 2
                buffered = [one.transport.get_write_buffer_size() for one in list(served.hub._sockets)]  # type: ignore[attr-defined]
                # The rest is what all of them share.
                assert sum(buffered) <= 11 * PIECE
            assert served.hub.connections == 1
            assert served.hub.closed == {"slow consumer": 10}
            served.advance(5)
            await eventually(lambda: served.hub.sockets == 1)
            assert served.hub._unsent.held == 0
        leave(writers)


async def test_frames_are_whole_however_they_were_cut_and_pings_come_between_them() -> None:
    async with serving(per_user=100) as served, served.socket("ann", options={"max_queue": 1}) as slow:
        await receive(slow)
        events = [large(number) for number in range(1, 5)]
        for number, task in enumerate(events):
            served.log.write(task)
            for connection in served.hub._registry.all():
                connection.ping()
            for _ in range(number):
                await asyncio.sleep(0)
        for number in range(1, 5):
            told = await receive(slow)
            assert told["event"]["task"]["description"] == "x" * (MIB // 4), number
        await slow.close()
        assert slow.close_code == 1000


async def test_what_waits_goes_out_before_the_end() -> None:
    async with serving() as served, served.socket("ann", options={"max_queue": 1}) as slow:
        await receive(slow)
        for number in range(1, 4):
            served.log.write(large(number))
        served.hub.close_all(1012, "log restarted")
        for _ in range(3):
            assert (await receive(slow))["type"] == "event"
        assert await closed(slow) == (1012, "log restarted")


@pytest.mark.parametrize(
    "begun",
    [frame(TEXT, b"x" * 100)[:50], frame(TEXT, b'{"type":', fin=False)],
    ids=["a frame", "fragments"],
)
async def test_a_message_that_does_not_end_is_cut_off(begun: bytes) -> None:
    async with serving() as served:
        reader, writer = await served.raw()
        writer.write(HEAD % b"" + begun)
        await eventually(lambda: len(served.hub._messages) == 1)
        # However many pongs may have come before it.
        for _ in range(29):
            served.clock.now += 1
            for connection in served.hub._pings.pop_due(0):
                served.hub.ponged(connection)
            served.hub.tick()
        assert served.hub.closed == {}
        served.advance(1)
        assert served.hub.closed == {"bad message": 1}
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).endswith(b"the message took too long")
        writer.close()


async def test_a_message_that_ends_in_time_is_no_reason_to_end() -> None:
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        for _ in range(3):
            whole = frame(TEXT, b'{"type":"ping"}')
            socket.transport.write(whole[:9])
            await eventually(lambda: len(served.hub._messages) == 1)
            served.clock.now += 9
            socket.transport.write(whole[9:])
            assert (await receive(socket))["type"] == "pong"
            assert (len(served.hub._messages), served.hub._unread.held) == (0, 0)


async def test_the_oldest_unfinished_message_is_not_waited_for_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "MAX_UNREAD", 150_000)
    async with serving(per_user=100) as served:
        talks = []
        for n in range(3):
            reader, writer = await served.raw()
            writer.write(HEAD % b"?client=c%d" % n + frame(TEXT, b" " * 60_000, fin=False))
            talks.append((reader, writer))
            await eventually(lambda n=n: len(served.hub._unread) == n + 1 or served.hub.closed)
        await eventually(lambda: served.hub.closed == {"bad message": 1})
        assert served.hub._unread.held <= 150_000
        assert b"too many messages are on their way" in await asyncio.wait_for(talks[0][0].read(), 20)
        for _, writer in talks:
            writer.close()
