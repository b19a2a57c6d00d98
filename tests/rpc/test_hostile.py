"""Callers that mean harm: others are answered, what they hold is bounded, and they are sent away."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from taskd import Taskd
from taskd.rpc import peers as module
from taskd.rpc.peers import FEW, MOST_ARRIVING, START_HELD, Peers
from taskd.rpc.server import MAX_STREAMS, OPTIONS
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import Caller, calling
from tests.rpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_WINDOW,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    Raw,
    begin,
    call,
    connected,
    frame,
)
from tests.rpc.test_server import taskd
from tests.waiting import eventually

LIST = b"/taskd.v1.TaskService/ListTasks"
WATCH = b"/taskd.v1.TaskService/WatchTasks"
ANN = (b"x-taskd-user", b"ann")
MIB = 1024 * 1024


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Taskd]:
    async with taskd(database_url) as found:
        yield found


@pytest.fixture
async def ann(app: Taskd) -> AsyncIterator[Caller]:
    async with calling(app.grpc_address, max_receive_message_length=-1) as caller:
        yield caller


def peers_of(app: Taskd) -> Peers:
    assert app.parts.grpc is not None
    return app.parts.grpc._peers


def option(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Set an option of core's that the server sets too."""
    assert name in OPTIONS
    monkeypatch.setitem(OPTIONS, name, value)


async def large_page(ann: Caller, mib: int = 4) -> int:
    """Make a page of so many MiB; return how many tasks it has."""
    drafts = [pb.NewTask(title="t", kind="nobody", payload=f'{{"x":"{"y" * 250_000}"}}') for _ in range(4)]
    for _ in range(mib):
        await ann.call("BatchCreateTasks", tasks=drafts)
    return 4 * mib


async def heads(raw: Raw, number: int) -> list[int]:
    """Return the streams of the next so many frames of fields."""
    found: list[int] = []
    while len(found) < number:
        kind, stream, _ = await raw.answering()
        if kind == HEADERS:
            found.append(stream)
    return found


async def test_answers_that_are_not_taken_are_bounded_and_others_get_theirs(
    app: Taskd, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await large_page(ann)
    async with connected(ann.channel_address, NO_WINDOW) as raw:
        streams = [2 * n + 1 for n in range(30)]
        await raw.send(*(call(LIST, ANN, stream=stream) for stream in streams))
        # Each call has its first fields, and all but one their last: those are refused, which takes no window.
        found = Counter(await heads(raw, 59))
        assert (sorted(found), sorted(found.values())) == (streams, [1] + [2] * 29)
        refused = app.parts.catalog.grpc_requests.labels("TaskService/ListTasks", "RESOURCE_EXHAUSTED")
        await eventually(lambda: refused.value == 29)
        assert 0 < peers_of(app).held <= START_HELD + MIB
        assert len((await ann.call("ListTasks")).tasks) == number
        monkeypatch.setattr(module, "PATIENCE", 0.0)
        monkeypatch.setattr(module, "SLOWEST", float("inf"))
        await raw.closed()
    await eventually(lambda: peers_of(app).held == 0)
    assert len((await ann.call("ListTasks")).tasks) == number


async def test_when_many_take_nothing_the_oldest_are_closed(
    app: Taskd, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await large_page(ann)
    monkeypatch.setattr(module, "MOST_HELD_BY_ALL", 24 * MIB)
    async with contextlib.AsyncExitStack() as stack:
        raws = []
        for _ in range(8):
            raw = await stack.enter_async_context(connected(ann.channel_address, NO_WINDOW))
            held = peers_of(app).held
            await raw.send(call(LIST, ANN))
            await heads(raw, 1)
            raws.append(raw)
            await eventually(lambda held=held: peers_of(app).held != held or held > 16 * MIB)
        await raws[0].closed()
        assert peers_of(app).held <= 24 * MIB
        assert len((await ann.call("ListTasks")).tasks) == number


async def test_a_watch_that_is_not_read_ends_with_its_connection(
    app: Taskd, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.parts.grpc is not None
    app.parts.grpc.watches._patience = 0.05
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    async with connected(ann.channel_address, NO_WINDOW) as raw:
        # Not even its greeting can be sent.
        await raw.send(call(WATCH, ANN))
        await raw.closed()
    refused = app.parts.catalog.grpc_requests.labels("TaskService/WatchTasks", "RESOURCE_EXHAUSTED")
    await eventually(lambda: refused.value)
    await eventually(lambda: not len(peers_of(app)))


async def test_requests_that_never_end_wait_for_their_turn_and_end_with_their_connection(
    app: Taskd, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(ann.channel_address) as raw:
        for n in range(200):
            await raw.send(begin(LIST, stream=2 * n + 1), frame(DATA, 0, 2 * n + 1, b"\0\0\x3f\xff\xff" + bytes(16)))

        def arriving() -> int:
            return max((len(peer.arriving) for peer in peers_of(app)._peers.values()), default=0)

        await eventually(lambda: arriving() == MOST_ARRIVING)
        await ann.call("ListTasks")
        assert arriving() == MOST_ARRIVING
        monkeypatch.setattr(module, "ARRIVES_WITHIN", 0.0)
        await raw.closed()
    await eventually(lambda: not len(peers_of(app)))


async def test_ten_thousand_streams_of_ten_connections(
    app: Taskd, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One less: ten connections have all that there may be.
    monkeypatch.setattr(module, "MOST_STREAMS", 10 * MAX_STREAMS - 1)
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(connected(ann.channel_address)) for _ in range(10)]
        reading: list[asyncio.Task[None]] = []
        # One after the other: of several thousand that nobody has looked at yet, core refuses some.
        for raw in raws:
            await _open(raw, MAX_STREAMS)
            reading.append(asyncio.create_task(_go_on(raw)))
        await eventually(lambda: app.parts.grpc is not None and len(app.parts.grpc.watches._live) >= 9_999)
        # Others have theirs.
        watches = [ann.begin("WatchTasks", pb.WatchTasksRequest(), timeout=None) for _ in range(FEW)]
        for watch in watches:
            await watch.read()
        made = await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"))
        for watch in watches:
            assert (await watch.read()).events[0].task.id == made.task.id
            watch.cancel()
        for task in reading:
            task.cancel()
    await eventually(lambda: app.parts.grpc is not None and not app.parts.grpc.watches._live)
    await eventually(lambda: not len(peers_of(app)))


async def test_ten_thousand_streams_of_one_connection(app: Taskd, ann: Caller) -> None:
    async with connected(ann.channel_address) as raw:
        await _open(raw, 10_000, expected=MAX_STREAMS)
        await ann.call("ListTasks")
        assert app.parts.grpc is not None
        assert len(app.parts.grpc.watches._live) <= MAX_STREAMS
    await eventually(lambda: app.parts.grpc is not None and not app.parts.grpc.watches._live)


async def _go_on(raw: Raw) -> None:
    """Read, and say that somebody is there, until it is over."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await raw.answering()


async def _open(raw: Raw, number: int, expected: int | None = None) -> None:
    """Open so many watches, and wait until so many have begun, or the server has closed."""

    async def write() -> None:
        for first in range(0, number, 100):
            await raw.send(*(call(WATCH, ANN, stream=2 * n + 1) for n in range(first, first + 100)))

    writing = asyncio.create_task(write())
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        seen: set[int] = set()
        while len(seen) < (expected or number):
            seen.update(await heads(raw, 1))
    with contextlib.suppress(ConnectionError):
        await writing


def reset(number: int) -> bytes:
    """Return a call that is taken back at once."""
    return begin(LIST, ANN, stream=2 * number + 1) + frame(RESET, 0, 2 * number + 1, b"\0\0\0\x08")


FLOODS: dict[str, Any] = {
    "resets": reset,
    "pings": lambda n: frame(PING, 0, 0, n.to_bytes(8, "big")),
    "settings": lambda n: frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff"),
    "empty data": lambda n: begin(LIST) if n == 0 else frame(DATA, 0, 1, b""),
    "continuations": lambda n: frame(HEADERS if n == 0 else CONTINUATION, 0, 1, b"\0\x03x-y\x01z" * 100),
    "large fields": lambda n: begin(LIST, *[(b"x-%d" % m, b"v" * 200) for m in range(200)], stream=2 * n + 1),
    # One field of 4000 bytes in the table (RFC 7541, 6.2.1), and each byte is one more of it (6.1).
    "fields out of the table": lambda n: frame(
        HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, b"\x40\x03x-y\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 10_000
    ),
    "unknown frames": lambda n: frame(0xFA, 0, 0, bytes(1000)),
    "windows": lambda n: frame(8, 0, 0, b"\x7f\xff\xff\xff"),
    "priorities": lambda n: frame(2, 0, 2 * n + 1, b"\0\0\0\0\x10"),
    "streams of no method": lambda n: call(b"/no/%d" % n, stream=2 * n + 1),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_keeps_nobody_from_being_answered_and_leaves_nothing(app: Taskd, ann: Caller, name: str) -> None:
    async with connected(ann.channel_address) as raw:

        async def pour() -> None:
            for first in range(0, 10_000, 50):
                await raw.send(*(FLOODS[name](n) for n in range(first, first + 50)))

        async def read() -> None:
            # Whoever floods may well take what comes.
            while await raw.some():
                pass

        pouring = [asyncio.create_task(pour()), asyncio.create_task(read())]
        for _ in range(20):
            await ann.call("ListTasks")
        _, running = await asyncio.wait(pouring, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
        await asyncio.gather(*pouring, return_exceptions=True)
    await ann.call("ListTasks")
    await eventually(lambda: not len(peers_of(app)))
    assert not app.failed.done()


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"])
async def test_who_does_not_begin_is_closed(database_url: str, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    option(monkeypatch, "grpc.server_handshake_timeout_ms", 100)
    async with taskd(database_url) as app, calling(app.grpc_address) as ann:
        async with connected(ann.channel_address, said) as raw:
            await raw.closed()
        await ann.call("ListTasks")


@pytest.mark.parametrize("said", [b"", b"\0\0\x20", begin(LIST)[:30], call(LIST)])
async def test_who_has_no_call_for_long_is_closed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    option(monkeypatch, "grpc.max_connection_idle_ms", 100)
    async with taskd(database_url) as app, calling(app.grpc_address) as ann:
        async with connected(ann.channel_address) as raw:
            await raw.send(said)
            await raw.closed()
        # Who comes back is taken.
        for _ in range(3):
            await ann.call("ListTasks")


async def test_connections_over_their_limit_are_closed_and_those_that_are_there_go_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option(monkeypatch, "grpc.max_allowed_incoming_connections", 3)
    async with taskd(database_url) as app, calling(app.grpc_address) as ann:
        await ann.call("ListTasks")
        async with connected(ann.channel_address) as one, connected(ann.channel_address) as two:
            for raw in (one, two):
                await raw.frame()
            async with connected(ann.channel_address) as over:
                await over.closed()
            await ann.call("ListTasks")
        async with calling(app.grpc_address) as other:
            assert await eventually(lambda: _answers(other))


async def _answers(caller: Caller) -> bool:
    try:
        await caller.call("ListTasks")
    except grpc.RpcError:
        return False
    return True


async def test_pings_as_often_as_may_be_are_no_flood(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether core knows the option by this name; its own would be five minutes.
    option(monkeypatch, "grpc.http2.min_ping_interval_without_data_ms", 0)
    async with taskd(database_url) as app, connected(str(app.grpc_address)) as raw:
        await raw.send(call(LIST))
        await heads(raw, 2)
        for _ in range(10):
            await raw.send(frame(PING, 0, 0, bytes(8)))
            kind, _, _ = await raw.frame()
            while kind != PING:
                assert kind != GOAWAY
                kind, _, _ = await raw.frame()
