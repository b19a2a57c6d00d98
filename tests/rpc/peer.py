"""A `TaskService` that does what a test tells it, also what a good one seldom does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message

from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import Event, EventKey, EventType
from taskd.rpc.messages import event_message
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server
from tests.ws.serving import AT, EPOCH, make_task

WITHIN = 30.0

Metadata = dict[str, Any]


def cursor(seq: int, epoch: bytes = EPOCH) -> str:
    """Return a place in the peer's log."""
    return encode_log_cursor(LogCursor(epoch, EventKey(7, seq)))


class WatchCall:
    """One watch, from the server's side."""

    def __init__(self, request: pb.WatchTasksRequest) -> None:
        self.request = request
        self.answers: asyncio.Queue[pb.WatchTasksResponse | grpc.StatusCode] = asyncio.Queue()
        self.ended = asyncio.Event()

    def greet(self, seq: int, *, recovered: bool | None = None, epoch: bytes = EPOCH, **more: Any) -> None:
        """Say where it begins."""
        start = pb.WatchStart(recovered=recovered)
        self.answers.put_nowait(pb.WatchTasksResponse(start=start, cursor=cursor(seq, epoch), **more))

    def tell(self, *events: Event, **more: Any) -> None:
        """Tell of events."""
        entries = [event_message(event, cursor(event.key.seq)) for event in events]
        self.answers.put_nowait(pb.WatchTasksResponse(events=entries, cursor=entries[-1].cursor, **more))

    def end(self, code: grpc.StatusCode) -> None:
        """End it with a status."""
        self.answers.put_nowait(code)


class Peer(TaskServiceServicer):
    """Remembers each unary call as (name, request, metadata) and answers it with `answers[name]`; hands out watches.

    An answer may be a message, a status, or None: none ever comes.
    """

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[tuple[str, Any, Metadata]] = []
        self.answers: dict[str, Message | grpc.StatusCode | None] = {}
        self.cancelled: list[str] = []
        self._watches: asyncio.Queue[WatchCall] = asyncio.Queue()

    async def watch(self) -> WatchCall:
        """Return the next watch that was begun."""
        async with asyncio.timeout(WITHIN):
            return await self._watches.get()

    async def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.calls.append((name, request, dict(context.invocation_metadata())))
        answer = self.answers.get(name)
        try:
            if answer is None:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "as the test asked")
        return answer

    async def GetTask(self, request: Any, context: Any) -> Any:
        return await self._answer("GetTask", request, context)

    async def CreateTask(self, request: Any, context: Any) -> Any:
        return await self._answer("CreateTask", request, context)

    async def UpdateTask(self, request: Any, context: Any) -> Any:
        return await self._answer("UpdateTask", request, context)

    async def DeleteTask(self, request: Any, context: Any) -> Any:
        return await self._answer("DeleteTask", request, context)

    async def ListTasks(self, request: Any, context: Any) -> Any:
        return await self._answer("ListTasks", request, context)

    async def ListEvents(self, request: Any, context: Any) -> Any:
        return await self._answer("ListEvents", request, context)

    async def WatchTasks(self, request: Any, context: Any) -> AsyncIterator[pb.WatchTasksResponse]:  # type: ignore[override]
        call = WatchCall(request)
        self._watches.put_nowait(call)
        try:
            while isinstance(answer := await call.answers.get(), pb.WatchTasksResponse):
                yield answer
            await context.abort(answer, "as the test asked")
        finally:
            call.ended.set()


def event_of_title(seq: int, title: str = "a task", **values: Any) -> Event:
    """Return the event at a place of the peer's log."""
    return Event(EventKey(7, seq), EventType.UPDATED, make_task(title=title, version=seq, **values), AT)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Peer]:
    """Run a peer on a port of its own."""
    peer = Peer()
    server = grpc.aio.server()
    add_TaskServiceServicer_to_server(peer, server)
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield peer
    finally:
        await server.stop(0)
