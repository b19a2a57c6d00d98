"""Each event once and in order, also to those who come back, and no memory without bound for who does not read."""

import asyncio
import random
import socket as sockets
from dataclasses import replace

import pytest

from taskd.domain.event import LOG_START, EventKey, EventType
from taskd.errors import Unavailable
from taskd.ws.resume import READ, TRIES
from tests.waiting import eventually
from tests.ws.serving import Serving, closed, make_task, receive, serving


async def test_an_event_carries_its_cursor_and_the_task() -> None:
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        event = served.log.write(make_task(), type_=EventType.CREATED)[0]
        message = await receive(socket)
        assert message.keys() == {"type", "cursor", "event"}
        assert message["cursor"] == served.log.cursor(event.key)
        assert message["event"]["type"] == "created"
        assert message["event"]["task"]["title"] == "Täsk"


@pytest.mark.parametrize("missed", [0, 1, READ - 1, READ, READ + 1, 3 * READ])
async def test_what_was_missed_comes_first_and_then_what_is_new(missed: int) -> None:
    async with serving() as served:
        served.log.write(*(make_task(number=n) for n in range(5)))
        served.log.write(*(make_task(number=n) for n in range(missed)))
        async with served.socket(after=served.cursor(5)) as socket:
            welcome = await receive(socket)
            assert (welcome["cursor"], welcome["recovered"]) == (served.cursor(5), True)
            got = [(await receive(socket))["cursor"] for _ in range(missed)]
            served.log.write(make_task())
            got.append((await receive(socket))["cursor"])
            assert got == [served.cursor(5 + n) for n in range(1, missed + 2)]
            await eventually(lambda: not served.supervisor._tasks)


@pytest.mark.parametrize("more", [0, 1])
async def test_what_was_read_ahead_of_the_feed_is_not_sent_again(more: int) -> None:
    async with serving() as served:
        served.log.write(*(make_task(number=n) for n in range(3)), hand_on=False)
        async with served.socket(after=served.cursor(0)) as socket:
            await receive(socket)
            got = [(await receive(socket))["cursor"] for _ in range(3)]
            await eventually(lambda: not served.supervisor._tasks)
            assert served.log.position == LOG_START
            served.log.write(*(make_task() for _ in range(more)))
            served.log.write(make_task())
            got += [(await receive(socket))["cursor"] for _ in range(more + 1)]
            assert got == [served.cursor(n) for n in range(1, 5 + more)]


async def test_a_client_that_leaves_does_not_wait_for_the_log() -> None:
    async with serving() as served:
        served.log.write(make_task())
        served.log.stuck = asyncio.Event()
        async with served.socket(after=served.cursor(0)) as socket:
            await receive(socket)
            await eventually(lambda: served.log.reads == 1)
        await eventually(lambda: not served.supervisor._tasks, within=5)


async def test_a_gap_older_than_the_log_is_admitted() -> None:
    async with serving() as served:
        served.log.write(*(make_task(number=n) for n in range(9)))
        served.log.floor = EventKey(7, 5)
        async with served.socket(after=served.cursor(2)) as socket:
            welcome = await receive(socket)
            assert (welcome["cursor"], welcome["recovered"]) == (served.cursor(9), False)
            served.log.write(make_task())
            assert (await receive(socket))["cursor"] == served.cursor(10)


@pytest.mark.parametrize("seed", range(8))
async def test_a_reader_that_reconnects_at_random_sees_each_event_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    total = 1500
    async with serving() as served:
        # Writes happen at every point at which the resuming reader can be, and sometimes ahead of the feed.
        written = 0

        def write() -> None:
            nonlocal written
            count = min(chance.choice([0, 0, 1, 3, READ]), total - written)
            written += count
            served.log.write(
                *(make_task(chance.choice(["ann", "bob"]), number=n) for n in range(count)),
                hand_on=chance.random() < 0.6,
            )

        served.log.before_read = write

        async def keep_writing() -> None:
            while written < total:
                write()
                await asyncio.sleep(0)
            served.log.hand_on()

        writing = asyncio.ensure_future(keep_writing())
        got: list[str] = []
        after = served.cursor(0)
        wanted: list[str] = []
        while not wanted or len(got) < len(wanted):
            async with served.socket(after=after) as socket:
                assert (await receive(socket))["recovered"] is True
                for _ in range(chance.randrange(1, 300)):
                    if writing.done():
                        wanted = [served.log.cursor(e.key) for e in served.log.events if e.task.owner == "ann"]
                        if len(got) >= len(wanted):
                            break
                    message = await receive(socket)
                    got.append(message["cursor"])
                    after = message["cursor"]
        await writing
        assert got == wanted


async def slow(served: Serving, **query: str) -> sockets.socket:
    """Return a connected socket with a small window; nothing reads from it."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    client = sockets.socket()
    client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", served.port))
    request = (
        f"GET /ws?{text} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(client, request.encode())
    return client


BIG = '{"x":"' + "y" * 200_000 + '"}'


async def test_a_slow_consumer_is_closed_and_misses_nothing_when_it_comes_back() -> None:
    async with serving() as served, served.socket(client="quick") as quick:
        await receive(quick)
        with await slow(served):
            await eventually(lambda: served.hub.connections == 2)
            for number in range(60):
                served.log.write(replace(make_task(number=number), payload_json=BIG))
                assert (await receive(quick))["type"] == "event"
            assert served.hub.closed == {"slow consumer": 1}
            assert served.hub.connections == 1
            # It does not read its close frame either, so it is dropped.
            served.advance(5)
            await eventually(lambda: served.hub.sockets == 1)
        async with served.socket(after=served.cursor(0)) as socket:
            await receive(socket)
            got = [(await receive(socket))["cursor"] for _ in range(60)]
        assert got == [served.cursor(n) for n in range(1, 61)]


async def test_what_is_not_taken_of_an_event_counts_from_that_event_on() -> None:
    async with serving() as served:
        with await slow(served):
            await eventually(lambda: served.hub.connections == 1)
            (connection,) = served.hub._registry.all()
            for number in range(1000):
                served.log.write(replace(make_task(number=number), payload_json='{"x":"' + "y" * 20_000 + '"}'))
                assert served.hub._unsent.held == connection.behind
                if connection.behind:
                    break
            assert connection.behind


async def test_of_events_that_come_together_no_more_waits_than_of_single_ones() -> None:
    async with serving() as served:
        with await slow(served):
            await eventually(lambda: served.hub.connections == 1)
            (connection,) = served.hub._registry.all()
            served.log.write(*(replace(make_task(number=n), payload_json=BIG) for n in range(60)))
            assert served.hub.closed == {"slow consumer": 1}
            assert 0 < connection.behind <= 1024 * 1024 + len(BIG) + 4096


async def test_a_slow_consumer_that_reads_on_is_told() -> None:
    async with serving() as served, served.socket(options={"max_queue": 1}) as socket:
        await receive(socket)
        while not served.hub.closed:
            served.log.write(replace(make_task(), payload_json=BIG))
        assert await closed(socket) == (4002, "slow consumer")


async def test_one_event_larger_than_the_bound_reaches_who_keeps_up() -> None:
    huge = '{"x":"' + "y" * 3_000_000 + '"}'
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        for _ in range(3):
            served.log.write(replace(make_task(), result_json=huge))
            assert len((await receive(socket))["event"]["task"]["result"]["x"]) == 3_000_000


async def test_who_is_far_behind_at_the_start_is_waited_for() -> None:
    async with serving() as served:
        served.log.write(*(replace(make_task(number=n), payload_json=BIG) for n in range(60)))
        with await slow(served, after=served.cursor(0)) as client:
            await eventually(lambda: any(c.behind > 256 * 1024 for c in served.hub._registry.all()))
            connection = served.hub._registry.all()[0]
            assert connection.behind < 1024 * 1024
            served.log.write(make_task())
            assert served.hub.connections == 1
            loop = asyncio.get_running_loop()
            read = bytearray()
            while served.cursor(61).encode() not in read[-4096:]:
                chunk = await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 20)
                assert chunk
                read += chunk
            places = [read.find(served.cursor(n).encode()) for n in range(1, 62)]
            assert -1 not in places
            assert places == sorted(places)
            await eventually(lambda: not served.supervisor._tasks)


async def test_a_client_that_leaves_while_it_catches_up_leaves_no_task() -> None:
    async with serving() as served:
        served.log.write(*(replace(make_task(number=n), payload_json=BIG) for n in range(60)))
        with await slow(served, after=served.cursor(0)):
            await eventually(lambda: any(c.behind > 256 * 1024 for c in served.hub._registry.all()))
            assert len(served.supervisor._tasks) == 1
        await eventually(lambda: not served.supervisor._tasks and not served.hub.sockets)
        assert served.hub.closed == {"lost": 1}


async def test_an_outage_while_catching_up_is_waited_out() -> None:
    async with serving() as served:
        served.log.write(make_task())
        served.log.errors = [Unavailable("away")] * (TRIES - 1)
        async with served.socket(after=served.cursor(0)) as socket:
            await receive(socket)
            served.log.errors = [Unavailable("away")] * 2
            assert (await receive(socket))["cursor"] == served.cursor(1)
        assert len(served.pauses) >= TRIES - 1


async def test_a_long_outage_asks_the_client_to_come_again() -> None:
    async with serving() as served:
        served.log.errors = [Unavailable("away")] * 100
        socket = await served.socket(after=served.cursor(0))
        assert await closed(socket) == (1013, "the event log is away; come again")
        assert served.hub.closed == {"unavailable": 1}
        await eventually(lambda: not served.supervisor._tasks)


async def test_a_stopped_supervisor_asks_the_client_to_come_again() -> None:
    async with serving() as served:
        await served.supervisor.stop()
        socket = await served.socket(after=served.cursor(0))
        assert (await closed(socket))[0] == 1013


async def test_closing_while_events_come_is_no_fault() -> None:
    async with serving() as served:
        for number in range(50):
            socket = await served.socket()
            await receive(socket)
            ending = asyncio.ensure_future(socket.close())
            for _ in range(number % 5):
                served.log.write(make_task())
                await asyncio.sleep(0)
            await ending
            assert (await closed(socket))[0] == 1000
        await eventually(lambda: not served.hub.sockets)
        assert served.hub.closed == {"client": 50}
