"""Events from one stream after another, by a server that ends them in every way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from taskd.client import Client, Events, EventsMissed
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import Event, EventKey, EventType
from taskd.errors import Forbidden, Invalid, TaskdError, Unavailable
from taskd.rpc.messages import event_message
from taskd.v1 import taskd_pb2 as pb
from tests.ws.serving import AT, make_task

Answer = pb.WatchTasksResponse | grpc.StatusCode | None


def place(number: int) -> str:
    """Return the cursor of a place."""
    return encode_log_cursor(LogCursor(b"8 bytes!", EventKey(1, number)))


def event(number: int) -> pb.TaskEvent:
    task = make_task(number=number)
    return event_message(Event(EventKey(1, number), EventType.UPDATED, task, AT), place(number))


def began(number: int = 0, recovered: bool | None = None) -> pb.WatchTasksResponse:
    return pb.WatchTasksResponse(cursor=place(number), start=pb.WatchStart(recovered=recovered))


def told(*numbers: int) -> pb.WatchTasksResponse:
    return pb.WatchTasksResponse(cursor=place(numbers[-1]), events=map(event, numbers))


def told_in_pieces(*numbers: int) -> pb.WatchTasksResponse:
    return pb.WatchTasksResponse(events=map(event, numbers))


def moved(number: int) -> pb.WatchTasksResponse:
    return pb.WatchTasksResponse(cursor=place(number))


class Script:
    """Answers each stream with what the test wrote for it; a list that ends without a status leaves the stream open."""

    def __init__(self, *streams: list[Answer]) -> None:
        self.requests: list[pb.WatchTasksRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self._streams = iter(streams)

    async def watch(self, request: pb.WatchTasksRequest, context: Any) -> AsyncIterator[pb.WatchTasksResponse]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        for answer in next(self._streams):
            if answer is None:
                return
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "as the test asked")
            else:
                yield answer
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def playing(script: Script, **options: Any) -> AsyncIterator[Client]:
    """Run a server that plays a script, and a client of it."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        script.watch, pb.WatchTasksRequest.FromString, pb.WatchTasksResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("taskd.v1.TaskService", {"WatchTasks": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}", **options) as client:
            yield client
    finally:
        await server.stop(0)


async def numbers_of(events: Events, count: int) -> list[int]:
    """Return the numbers of the next events."""
    found = []
    async with asyncio.timeout(30):
        while len(found) < count:
            cursor, one = await anext(events)
            assert cursor == place(one.key.seq)
            found.append(one.key.seq)
    return found


@pytest.mark.parametrize(
    "end",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        None,
    ],
)
async def test_a_stream_that_ends_is_followed_by_another_behind_it(end: grpc.StatusCode | None) -> None:
    script = Script([began(5), told(6, 7), moved(9), end], [end], [began(9, True), told(10)])
    async with playing(script) as client:
        assert await numbers_of(client.events(), 3) == [6, 7, 10]
    assert [request.after for request in script.requests] == ["", place(9), place(9)]


async def test_a_piece_of_an_answer_has_its_place_in_its_last_event() -> None:
    script = Script([began(5), told_in_pieces(6, 7), None], [began(7, True), told(8)])
    async with playing(script) as client:
        assert await numbers_of(client.events(), 3) == [6, 7, 8]
    assert [request.after for request in script.requests] == ["", place(7)]


async def test_it_asks_for_what_the_caller_wants() -> None:
    script = Script([began()])
    async with playing(script, user="ann", token="tk_1") as client:
        task = make_task(number=3)
        events = client.events(
            after=place(4), kinds=["a", "b"], statuses=["done", "failed"], tasks=[task.id], all_owners=True
        )
        assert await events.start() == place(0)
        assert await events.start() == place(0)
    (asked,) = script.requests
    assert asked == pb.WatchTasksRequest(
        after=place(4),
        kinds=["a", "b"],
        statuses=[pb.TASK_STATUS_DONE, pb.TASK_STATUS_FAILED],
        tasks=[str(task.id)],
        all_owners=True,
    )
    assert script.metadata[0]["x-taskd-user"] == "ann"
    assert script.metadata[0]["authorization"] == "Bearer tk_1"


async def test_who_missed_events_is_told_and_can_go_on() -> None:
    script = Script([began(), told(1), grpc.StatusCode.ABORTED], [began(50, recovered=False), told(51)])
    async with playing(script) as client:
        events = client.events()
        assert await numbers_of(events, 1) == [1]
        with pytest.raises(EventsMissed) as missed:
            await anext(events)
        assert missed.value.cursor == place(50)
        assert await numbers_of(events, 1) == [51]


async def test_the_first_answer_has_to_come() -> None:
    script = Script(*([[grpc.StatusCode.UNAVAILABLE]] * 5), [began(), told(1)])
    async with playing(script) as client:
        with pytest.raises(Unavailable):
            await anext(client.events())
        assert await numbers_of(client.events(), 1) == [1]
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unavailable):
            await client.events().start()


@pytest.mark.parametrize(
    ("code", "error"),
    [(grpc.StatusCode.PERMISSION_DENIED, Forbidden), (grpc.StatusCode.INTERNAL, TaskdError)],
)
async def test_what_would_not_go_better_is_told(code: grpc.StatusCode, error: type[TaskdError]) -> None:
    script = Script([began(), code])
    async with playing(script) as client:
        events = client.events()
        await events.start()
        with pytest.raises(error):
            await anext(events)


async def test_a_silent_stream_is_followed_by_another() -> None:
    # On a slow machine the second one may be taken for silent too.
    script = Script([began(5)], *([[began(5, True), told(6)]] * 100))
    async with playing(script) as client:
        events = client.events()
        await events.start()
        events._watch._silence = 0.1
        assert await numbers_of(events, 1) == [6]


async def test_who_stops_reading_ends_the_stream() -> None:
    ended = asyncio.Event()

    class Watched(Script):
        async def watch(self, request: pb.WatchTasksRequest, context: Any) -> AsyncIterator[pb.WatchTasksResponse]:
            try:
                yield began()
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with playing(Watched()) as client:
        async with client.events() as events:
            await events.start()
        async with asyncio.timeout(30):
            await ended.wait()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"kinds": ["No"]}, "kinds[0]"), ({"statuses": ["over"]}, "statuses"), ({"tasks": ["x"]}, "id")],
)
async def test_wrong_arguments_are_refused(wrong: dict[str, Any], field: str) -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Invalid) as refused:
            client.events(**wrong)
    assert [fault.field for fault in refused.value.faults] == [field]
