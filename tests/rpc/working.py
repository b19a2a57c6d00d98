"""A worker elsewhere, written down message by message, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc

from taskd import Taskd
from taskd.domain.model import Status, Task
from taskd.rpc.channel import open_channel
from taskd.rpc.messages import duration
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import WorkerServiceStub
from tests.waiting import eventually


class Stream:
    """One stream to `WorkerService`. Pings are answered, and not shown."""

    def __init__(self, channel: grpc.aio.Channel, user: str = "worker") -> None:
        self.call = WorkerServiceStub(channel).Work(metadata=(("x-taskd-user", user),))  # type: ignore[call-arg]
        self.pings = 0
        self.answers_pings = True

    async def say(self, **what: Any) -> None:
        """Send one message."""
        await self.call.write(pb.WorkRequest(**what))

    async def hear(self, what: str = "", within: float = 30) -> Any:
        """Return the next message that is no ping; fail if it is not of this kind."""
        async with asyncio.timeout(within):
            while True:
                message = await self.call.read()
                if message is grpc.aio.EOF:
                    raise EOFError(await self.call.code())
                kind = message.WhichOneof("message")
                if kind != "ping":
                    assert not what or kind == what, message
                    return getattr(message, kind)
                self.pings += 1
                if self.answers_pings:
                    await self.say(pong=pb.Pong())

    async def hello(self, *kinds: str, slots: int = 4, lease: float = 30.0, **more: Any) -> pb.Welcome:
        """Introduce the worker."""
        await self.say(hello=pb.Hello(kinds=kinds or ("k",), slots=slots, lease=duration(lease), **more))
        welcome: pb.Welcome = await self.hear("welcome")
        return welcome

    async def tasks(self, number: int = 1) -> list[pb.Task]:
        """Return the next so many tasks."""
        found: list[pb.Task] = []
        while len(found) < number:
            found += (await self.hear("tasks")).tasks
        return found

    async def settle(self, *results: pb.Result) -> dict[tuple[str, int], bool]:
        """Send results, and return what became of each."""
        await self.say(results=pb.Results(results=results))
        found: dict[tuple[str, int], bool] = {}
        while len(found) < len(results):
            for one in (await self.hear("settled")).results:
                found[one.attempt.task_id, one.attempt.attempt] = one.accepted
        return found

    async def refused(self) -> grpc.aio.AioRpcError:
        """Return the error that the stream ends with."""
        async with asyncio.timeout(30):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return error
        raise AssertionError(f"it ended with {await self.call.code()}")


def attempt_of(task: pb.Task) -> pb.Attempt:
    return pb.Attempt(task_id=task.id, attempt=task.attempt)


def done(task: pb.Task, result: str = "null") -> pb.Result:
    return pb.Result(attempt=attempt_of(task), result=result)


def failed(task: pb.Task, **failure: Any) -> pb.Result:
    return pb.Result(attempt=attempt_of(task), failure=pb.AttemptFailure(type="Oops", message="no luck", **failure))


def released(task: pb.Task) -> pb.Result:
    return pb.Result(attempt=attempt_of(task), released=pb.Released())


def id_of(task: pb.Task) -> UUID:
    return UUID(task.id)


@contextlib.asynccontextmanager
async def working(app: Taskd | None, target: str | None = None) -> AsyncIterator[Stream]:
    """Open a channel of its own, and a stream on it."""
    target = target or (app.grpc_address if app else None)
    assert target is not None
    channel = open_channel(target)
    try:
        yield Stream(channel)
    finally:
        await channel.close()


async def reaches(app: Taskd, task: Task, status: Status) -> Task:
    async def reached() -> Task | None:
        found = await app.tasks.get(task.id)
        return found if found.status is status else None

    return await eventually(reached)  # type: ignore[return-value]
