"""The event log as Server-Sent Events, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from taskd.domain.event import EventKey, EventType
from taskd.errors import Unavailable
from taskd.web import events
from taskd.web.application import application
from taskd.web.events import BATCH, EVENT_STREAM, QUERY, EventStreams
from taskd.web.identity import Callers
from tests.gates import Words
from tests.waiting import eventually
from tests.web.serving import Client, Serving, request, serving
from tests.web.site import route
from tests.ws.serving import Log, make_task


@dataclass
class Stream:
    """A client of the stream, after its head was read."""

    client: Client
    text: str = ""

    async def event(self) -> dict[str, str]:
        """Return the next event's fields; a comment's is `""`."""
        while "\n\n" not in self.text:
            chunk = await self.client.chunk()
            assert chunk, "the stream has ended"
            self.text += chunk.decode()
        block, _, self.text = self.text.partition("\n\n")
        fields = [line.partition(":") for line in block.split("\n")]
        return {name: value.removeprefix(" ") for name, _, value in fields}

    async def numbers(self, count: int) -> list[int]:
        """Return the task numbers of so many events."""
        return [int(json.loads((await self.event())["data"])["task"]["id"].replace("-", ""), 16) for _ in range(count)]


@dataclass
class Streaming:
    log: Log
    serving: Serving

    async def open(self, target: str = "/events", user: str = "ann", **fields: str) -> tuple[Stream, dict[str, Any]]:
        """Open a stream; return it and its welcome."""
        client = await self.serving.client()
        client.send(request("GET", target, X_Taskd_User=user, **fields))
        got = await client.head()
        assert (got.status, got.get("Content-Type")) == (200, EVENT_STREAM)
        stream = Stream(client)
        welcome = await stream.event()
        assert welcome["event"] == "welcome"
        data = json.loads(welcome["data"])
        assert welcome["id"] == data["cursor"]
        return stream, data

    def cursor(self, seq: int) -> str:
        return self.log.cursor(EventKey(7, seq))


@contextlib.asynccontextmanager
async def streaming(heartbeat: float = 3600) -> AsyncIterator[Streaming]:
    log = Log()
    gate = Words()
    streams = EventStreams(log, gate.hold, 8, heartbeat)
    stream = route(streams.open, path="/events", query=QUERY, produces=(EVENT_STREAM,))
    async with serving(application([stream], Callers(gate))) as found:
        yield Streaming(log, found)
    await eventually(lambda: not log.listeners)


async def test_a_stream_begins_now_and_tells_what_happens() -> None:
    async with streaming() as found:
        found.log.write(make_task(number=1))
        stream, welcome = await found.open()
        assert welcome == {"type": "welcome", "user": "ann", "cursor": found.cursor(1), "recovered": None}
        found.log.write(make_task(number=2), type_=EventType.STARTED)
        event = await stream.event()
        assert (event["id"], event["event"]) == (found.cursor(2), "started")
        assert json.loads(event["data"]) == json.loads(found.log.events[1].json)
        # Then it waits.
        await eventually(lambda: found.log.reads == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert found.log.reads == 2


@pytest.mark.parametrize("how", ["after", "header", "both"])
async def test_a_stream_goes_on_where_the_client_was(how: str) -> None:
    async with streaming() as found:
        found.log.write(*[make_task(number=n) for n in range(1, 6)])
        target = f"/events?after={found.cursor(2 if how == 'after' else 0)}" if how != "header" else "/events"
        fields = {} if how == "after" else {"Last-Event-ID": found.cursor(2)}
        stream, welcome = await found.open(target, **fields)
        assert (welcome["recovered"], welcome["cursor"]) == (True, found.cursor(2))
        assert await stream.numbers(3) == [3, 4, 5]


async def test_who_was_away_too_long_is_told_so() -> None:
    async with streaming() as found:
        found.log.write(*[make_task(number=n) for n in range(1, 6)])
        found.log.floor = EventKey(7, 4)
        stream, welcome = await found.open(f"/events?after={found.cursor(1)}")
        assert (welcome["recovered"], welcome["cursor"]) == (False, found.cursor(5))
        found.log.write(make_task(number=6))
        assert await stream.numbers(1) == [6]


async def test_only_own_events_are_told_but_an_admin_sees_all() -> None:
    async with streaming() as found:
        ann, _ = await found.open()
        root, _ = await found.open(user="root")
        found.log.write(make_task("ben", number=1), make_task("ann", number=2), make_task("ben", number=3))
        assert await ann.numbers(1) == [2]
        assert await root.numbers(3) == [1, 2, 3]


async def test_nothing_is_lost_or_told_twice_while_the_log_grows() -> None:
    async with streaming() as found:
        found.log.write(*[make_task(number=n) for n in range(1, 2 * BATCH + 8)])
        written = 2 * BATCH + 7

        def grow() -> None:
            nonlocal written
            if written < 3 * BATCH:
                written += 1
                found.log.write(make_task(number=written))

        found.log.before_read = grow
        stream, _ = await found.open(f"/events?after={found.cursor(1)}")
        while written < 3 * BATCH:
            found.log.write(make_task(number=written + 1))
            written += 1
            await asyncio.sleep(0)
        assert await stream.numbers(3 * BATCH - 1) == list(range(2, 3 * BATCH + 1))


async def test_a_slow_client_is_waited_for_and_little_is_encoded_ahead() -> None:
    async with streaming() as found:
        big = "x" * 200_000
        found.log.write(*[make_task(number=n, description=big) for n in range(1, 101)])
        stream, _ = await found.open(f"/events?after={found.cursor(1)}")
        await eventually(lambda: found.serving.connection._writable is not None)
        transport = found.serving.connection._transport
        assert transport.get_write_buffer_size() < len(big) + 3 * events.PIECE
        assert await stream.numbers(99) == list(range(2, 101))


async def test_silence_is_filled_with_comments() -> None:
    async with streaming(heartbeat=0.001) as found:
        stream, _ = await found.open()
        for _ in range(3):
            assert await stream.event() == {"": ""}
        found.log.write(make_task(number=1))
        while not (event := await stream.event()).get("data"):
            pass
        assert event["id"] == found.cursor(1)


async def test_an_outage_ends_the_stream_in_order() -> None:
    async with streaming() as found:
        stream, _ = await found.open()
        await eventually(lambda: found.log.reads == 1)
        found.log.errors.append(Unavailable("away"))
        found.log.write(make_task(number=1))
        assert await stream.client.chunk() == b""


@pytest.mark.parametrize("how", ["gone", "server"])
async def test_a_stream_that_ended_leaves_nothing_in_the_feed(how: str) -> None:
    async with streaming() as found:
        stream, _ = await found.open()
        await eventually(lambda: len(found.log.listeners) == 1)
        if how == "gone":
            stream.client.vanish()
        else:
            found.serving.server.end_streams()
        await eventually(lambda: not found.log.listeners)


@pytest.mark.parametrize(
    ("target", "fields", "named"),
    [
        ("/events?after=x", {}, "after"),
        ("/events?after=", {}, "after"),
        ("/events?after=%FF", {}, "after"),
        ("/events?kind=a", {}, "kind"),
        ("/events", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("/events", {"Last-Event-ID": "é"}, "Last-Event-ID"),
    ],
)
async def test_a_bad_place_is_refused_by_name(target: str, fields: dict[str, str], named: str) -> None:
    async with streaming() as found:
        got = await (await found.serving.client()).ask("GET", target, **fields)
        assert (got.status, got.json()["errors"][0]["field"]) == (422, named)


async def test_an_outage_at_the_beginning_is_503() -> None:
    async with streaming() as found:
        found.log.errors.append(Unavailable("away"))
        got = await (await found.serving.client()).ask("GET", f"/events?after={found.cursor(0)}")
        assert (got.status, got.get("Retry-After")) == (503, "1")
