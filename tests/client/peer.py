"""A server for workers that does what a test tells it, also what a good one seldom does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import grpc

from taskd import Context
from taskd.client import Worker
from taskd.domain.model import Task
from taskd.rpc.messages import duration, task_message
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from tests.ws.serving import make_task

WITHIN = 30.0


class Conversation:
    """One stream, from the server's side."""

    def __init__(self, hello: pb.Hello) -> None:
        self.hello = hello
        self.heard: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()
        self.answers: asyncio.Queue[pb.WorkResponse | grpc.StatusCode | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        """The worker has closed its half, or the stream is broken."""

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.answers.put_nowait(pb.WorkResponse(**message))

    def welcome(self, session: str = "s1", *, resumed: bool = False, lease: float = 60.0) -> None:
        """Answer to `Hello`."""
        self.say(welcome=pb.Welcome(session=session, resumed=resumed, lease=duration(lease)))

    def give(self, *tasks: Task) -> None:
        """Hand out tasks."""
        self.say(tasks=pb.Tasks(tasks=map(task_message, tasks)))

    def cancel(self, task: Task, reason: pb.CancelReason) -> None:
        """Have an attempt stopped."""
        self.say(cancel=pb.Cancel(attempt=attempt_of(task), reason=reason))

    def settle(self, *tasks: Task, accepted: bool = True) -> None:
        """Acknowledge results."""
        self.say(
            settled=pb.Settled(
                results=[pb.SettledResult(attempt=attempt_of(task), accepted=accepted) for task in tasks]
            )
        )

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """End the stream with a status; None: well."""
        self.answers.put_nowait(code)

    async def next(self) -> pb.WorkRequest:
        """Return the next message of the worker."""
        async with asyncio.timeout(WITHIN):
            return await self.heard.get()

    async def results(self, number: int = 1) -> list[pb.Result]:
        """Return so many results, past whatever else comes."""
        found: list[pb.Result] = []
        while len(found) < number:
            found += (await self.next()).results.results
        return found

    async def until_closed(self) -> None:
        """Wait until the worker is done."""
        async with asyncio.timeout(WITHIN):
            await self.closed.wait()


class Peer(WorkerServiceServicer):
    """Collects the streams of workers."""

    def __init__(self) -> None:
        self.address = ""
        self._waiting: asyncio.Queue[Conversation] = asyncio.Queue()

    async def meet(self) -> Conversation:
        """Return the next stream that a worker has begun."""
        async with asyncio.timeout(WITHIN):
            return await self._waiting.get()

    @property
    def met_all(self) -> bool:
        """Whether no stream waits to be met."""
        return self._waiting.empty()

    async def Work(self, requests: AsyncIterator[pb.WorkRequest], context: Any) -> AsyncIterator[pb.WorkResponse]:  # type: ignore[override]
        conversation = Conversation((await anext(requests)).hello)
        listening = asyncio.create_task(_listen(requests, conversation))
        self._waiting.put_nowait(conversation)
        try:
            while isinstance(answer := await conversation.answers.get(), pb.WorkResponse):
                yield answer
            if answer is not None:
                await context.abort(answer, "as the test asked")
        finally:
            listening.cancel()
            conversation.closed.set()


async def _listen(requests: AsyncIterator[pb.WorkRequest], conversation: Conversation) -> None:
    async for request in requests:
        conversation.heard.put_nowait(request)
    conversation.closed.set()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Peer]:
    """Run a peer on a port of its own."""
    peer = Peer()
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(peer, server)
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield peer
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker, and stop it at the end if the test has not."""
    running = asyncio.create_task(worker.run())
    try:
        yield running
    finally:
        while not running.done():
            # The second one ends the wait for a server that settles nothing.
            running.cancel()
            await asyncio.wait({running}, timeout=0.1)
        if not running.cancelled():
            running.result()


def task_of_kind(kind: str = "work", *, attempt: int = 1, **values: Any) -> Task:
    """Return a task as a server hands it out."""
    return make_task(kind=kind, number=uuid4().int, attempt=attempt, **values)


def attempt_of(task: Task) -> pb.Attempt:
    return pb.Attempt(task_id=str(task.id), attempt=task.attempt)


def keys_of(attempts: Any) -> set[UUID]:
    """Return the ids of the tasks whose attempts these are."""
    return {UUID(attempt.task_id) for attempt in attempts}


class Handler:
    """A handler that waits to be let go, and knows what it was given and what became of that."""

    def __init__(self) -> None:
        self.started: list[Task] = []
        self.cancelled: list[Task] = []
        self.let_go = asyncio.Event()

    async def __call__(self, task: Task, ctx: Context) -> dict[str, int]:
        self.started.append(task)
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(task)
            raise
        return {"number": len(self.started)}


def worker_of(peer: Peer, handler: Any, **options: Any) -> Worker:
    worker = Worker(peer.address, **options)
    worker.handler("work")(handler)
    return worker


async def echo(task: Task, ctx: Context) -> Any:
    return task.payload
