"""Watches of a log in memory, behind a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from taskd.domain.event import EventKey
from taskd.rpc.tasks import TaskCalls
from taskd.rpc.watch import Watches
from taskd.v1 import taskd_pb2 as pb
from tests.gates import Words
from tests.rpc.calling import WITHIN, Caller, Service, answering
from tests.waiting import eventually
from tests.ws.serving import AT, Log

EVE = "eve"
"""The one user who may not see what belongs to others."""


class WatchedLog(Log):
    """The port `Feed`, with a clock that stands still."""

    def now(self) -> datetime | None:
        return AT


class Watch:
    """A watch from its caller's side."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.cursor = ""
        self.numbers: list[int] = []
        self.answers: list[pb.WatchTasksResponse] = []

    async def answer(self) -> pb.WatchTasksResponse:
        """Return the next answer."""
        async with asyncio.timeout(WITHIN):
            answer: pb.WatchTasksResponse = await self.call.read()
        self.answers.append(answer)
        self.cursor = answer.cursor
        self.numbers += [event.task.version for event in answer.events]
        return answer

    async def until(self, count: int) -> list[int]:
        """Return the versions of the tasks of the first so many events."""
        while len(self.numbers) < count:
            await self.answer()
        return self.numbers


class Watching:
    """The log, those who follow it, and a caller."""

    def __init__(self, log: WatchedLog, watches: Watches, caller: Caller) -> None:
        self.log = log
        self.watches = watches
        self.caller = caller

    def begin(self, user: str = "ann", **fields: Any) -> Watch:
        """Begin a watch."""
        self.caller.metadata = (("x-taskd-user", user),)
        return Watch(self.caller.begin("WatchTasks", pb.WatchTasksRequest(**fields), timeout=None))

    async def greeted(self, user: str = "ann", **fields: Any) -> Watch:
        """Begin a watch, and return it once it follows the log."""
        watch = self.begin(user, **fields)
        assert (await watch.answer()).HasField("start")
        return watch

    def cursor(self, seq: int) -> str:
        """Return the cursor behind the log's event number `seq`."""
        return self.log.cursor(EventKey(7, seq))


@contextlib.asynccontextmanager
async def watching(**options: Any) -> AsyncIterator[Watching]:
    """Serve a log's watches."""
    log = WatchedLog()
    watches = Watches(log, **options)
    calls: Any = TaskCalls(Service(), Service(), log, watches)
    async with answering(calls, gate=Words()) as served:
        yield Watching(log, watches, served.caller)
    # gRPC's stop does not wait for the ends of calls.
    await eventually(lambda: not log.listeners)
