"""The event log, followed from elsewhere: one stream after another, so that its reader sees one without end.

A stream ends when its server stops, when its reader is too slow, when the log is another one, or when the network
breaks. Each answer has a cursor, the place behind all that was read; the next stream begins there, so no event is lost
and none comes twice. Only what the server no longer keeps is lost, and then the reader is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

import grpc

from taskd.client.calls import TRIES, failure_of
from taskd.domain.event import Event
from taskd.errors import TaskdError, Unavailable
from taskd.rpc.messages import event_of
from taskd.runtime.backoff import Backoff
from taskd.v1 import taskd_pb2 as pb

SILENCE = 45.0
"""Seconds without an answer after which a stream is taken for broken: servers say something every 15 s."""

COMES_BACK = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)
"""How a stream may end and be begun again. CANCELLED: by the server or something in between, not by the reader."""

Stream = grpc.aio.UnaryStreamCall[pb.WatchTasksRequest, pb.WatchTasksResponse]
Begin = Callable[[pb.WatchTasksRequest], Stream]


class EventsMissed(TaskdError):
    """Events behind the cursor are no longer kept: read the tasks anew, then go on behind `cursor`."""

    code = "events-missed"
    title = "Events missed"

    def __init__(self, cursor: str) -> None:
        super().__init__("events behind the cursor are no longer kept: read the tasks anew")
        self.cursor = cursor
        """The present end of the log, taken before this was raised."""


class Watch:
    """The answers of `WatchTasks`, from one stream after another.

    Args:
        begin: begins a stream.
        request: what to watch, and behind which cursor the first stream begins.
        silence: see `SILENCE`.
        backoff: the pauses between streams that end without an answer.
    """

    def __init__(
        self,
        begin: Begin,
        request: pb.WatchTasksRequest,
        *,
        silence: float = SILENCE,
        backoff: Backoff | None = None,
    ) -> None:
        self.cursor = request.after
        """The place behind all that was returned; empty before the first answer, if none was given."""
        self._begin = begin
        self._request = request
        self._silence = silence
        self._backoff = backoff or Backoff(0.1, 2.0)
        self._stream: Stream | None = None
        self._answered = False
        self._tries = 0

    async def next(self) -> pb.WatchTasksResponse:
        """Return the next answer, from a new stream if the present one ends.

        Raises:
            EventsMissed: some are lost; a further call goes on behind them.
            Unavailable: there was no answer yet since the beginning, and none is to be had in a few tries.
            TaskdError: the request is refused.
        """
        while True:
            try:
                answer = await self._read()
            except Unavailable:
                self._tries += 1
                if not self._answered and self._tries >= TRIES:
                    raise
            else:
                if answer is not None:
                    return self._took(answer)
            await asyncio.sleep(self._backoff.next())

    def close(self) -> None:
        """End the stream. Safe twice."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    async def _read(self) -> pb.WatchTasksResponse | None:
        """Return an answer of the present stream, or None when it ended and another may be begun."""
        if self._stream is None:
            self._request.after = self.cursor
            self._stream = self._begin(self._request)
        stream = self._stream
        try:
            async with asyncio.timeout(self._silence):
                answer = await stream.read()
        except TimeoutError:
            self.close()
            raise Unavailable("the server says nothing") from None
        except grpc.aio.AioRpcError as error:
            self.close()
            failure = failure_of(error)
            if error.code() in COMES_BACK and self._answered:
                return None
            raise failure from None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, pb.WatchTasksResponse):
            return answer
        self.close()
        return None

    def _took(self, answer: pb.WatchTasksResponse) -> pb.WatchTasksResponse:
        self._answered = True
        self._backoff.reset()
        self.cursor = answer.cursor or (answer.events[-1].cursor if answer.events else self.cursor)
        if answer.HasField("start") and answer.start.HasField("recovered") and not answer.start.recovered:
            raise EventsMissed(answer.cursor)
        return answer


class Events:
    """Events with their cursors, for `async for`; made by `Client.events`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._read: deque[tuple[str, Event]] = deque()
        self._started = False

    async def start(self) -> str:
        """Begin now, and return the cursor of the place where it begins. Without it, the first event asked for does.

        Raises:
            EventsMissed, TaskdError: as the iteration does.
        """
        if not self._started:
            await self._more()
        return self._watch.cursor

    async def close(self) -> None:
        """End. Safe twice, and before `start`."""
        self._watch.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Event]:
        while not self._read:
            await self._more()
        return self._read.popleft()

    async def _more(self) -> None:
        answer = await self._watch.next()
        self._started = True
        self._read.extend((event.cursor, event_of(event)) for event in answer.events)
