"""The event log of a taskd elsewhere, as transports see one: `ports.Feed` over `WatchTasks` and `ListEvents`.

One watch of everything feeds all who follow here. It is opened again from its last cursor when it breaks, so that
whoever is connected here notices nothing but a pause; only when the log turns out to be another one, or no longer
reaches back so far, must they begin anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from taskd.clock import Clock, monotonic
from taskd.domain.cursor import LogCursor, decode_log_cursor
from taskd.domain.event import LOG_START, Event, EventKey
from taskd.domain.model import User
from taskd.errors import TaskdError, Unavailable
from taskd.rpc.messages import event_of, time_of
from taskd.rpc.upstream import ANSWER_WITHIN, answered, metadata_of
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.service.feed import BaseFeed
from taskd.service.ports import Resume
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub

logger = logging.getLogger("taskd.feed")

SILENCE = 20.0
"""Seconds without an answer after which the watch counts as broken: it has a heartbeat of 15."""

MOST = 1000
"""Events of one `ListEvents`."""

NO_CONTACT = "no contact yet"


class RemoteFeed(BaseFeed):
    """Follows another process's log; implements `ports.Feed`.

    Until the first contact nothing is known of the log: `fault` says so, and a cursor can't be judged.

    Args:
        channel: to the service; whoever made it closes it.
        user: who follows: an admin there.
        supervisor: owns the watch.
        silence: seconds; see `SILENCE`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        user: User,
        supervisor: Supervisor,
        *,
        silence: float = SILENCE,
        clock: Clock = monotonic,
    ) -> None:
        super().__init__(clock)
        self._stub = TaskServiceStub(channel)
        self._user = user
        self._silence = silence
        self._fault: str | None = NO_CONTACT
        self._backoff = Backoff(0.1, 1.0)
        self._service = Periodic("upstream", self.run_once, supervisor, Backoff(0.1, 1.0))

    @property
    def fault(self) -> str | None:
        """Why the log can't be followed now, or None."""
        return self._fault

    def start(self) -> None:
        """Begin to follow."""
        self._service.start()

    async def stop(self) -> None:
        """Follow no longer. Safe twice, and before `start`."""
        await self._service.stop()

    async def run_once(self) -> float:
        """Follow the log until that breaks; return the seconds until the next try."""
        try:
            await self._follow()
        except TaskdError as error:
            self._lost(error)
        return self._backoff.next()

    async def _follow(self) -> None:
        after = self.cursor(self._position) if self._epoch else ""
        request = pb.WatchTasksRequest(after=after, all_owners=True)
        watch = self._stub.WatchTasks(request, metadata=tuple(metadata_of(self._user)))
        try:
            while True:
                answer = await self._next(watch)
                self._take(answer, _events_of(answer.events))
        finally:
            watch.cancel()

    async def _next(self, watch: Any) -> pb.WatchTasksResponse:
        try:
            async with asyncio.timeout(self._silence):
                answer = await watch.read()
        except TimeoutError:
            raise Unavailable(f"nothing was heard for {self._silence:g} seconds") from None
        except grpc.aio.AioRpcError as error:
            raise answered(error) from error
        if not isinstance(answer, pb.WatchTasksResponse):
            raise Unavailable("the watch has ended")
        return answer

    def _take(self, answer: pb.WatchTasksResponse, events: Sequence[Event]) -> None:
        """Take what a watch tells, and hand it on."""
        cursor = decode_log_cursor(answer.cursor, "cursor")
        if answer.HasField("start"):
            self._found(cursor, answer.start.recovered)
        if answer.HasField("now"):
            # It was sent a while ago: the clock there is ahead by this, or more.
            least = time_of(answer.now).timestamp() - self._clock()
            self._ahead = least if self._ahead is None else max(self._ahead, least)
        self._hand_on(events, max(self._position, cursor.key))

    def _found(self, cursor: LogCursor, recovered: bool) -> None:
        """Take note that there is a watch."""
        self._ahead = None
        self._backoff.reset()
        if self._fault is not None:
            logger.info("following the log of the upstream")
        self._fault = None
        if recovered and cursor.epoch == self._epoch:
            return
        if self._epoch:
            logger.error("the upstream's log is not the one that was read before; all readers must begin anew")
        self._begin_at(cursor.epoch, cursor.key)
        # Also at the first contact: who came before it was told of no place, and may have missed something.
        self._reset()

    def _lost(self, error: TaskdError) -> None:
        if self._fault in (None, NO_CONTACT):
            cause = error.__cause__
            # Told once, so with all that gRPC knows: which address, and what became of it.
            reason = cause.details() if isinstance(cause, grpc.aio.AioRpcError) else None
            logger.warning("the upstream's log can't be followed: %s", reason or error)
        self._fault = str(error)

    async def read(self, after: EventKey, limit: int, until: EventKey = LOG_START) -> Sequence[Event]:
        """Return up to `limit` events behind `after`, none that listeners have not been handed; see `ports.Feed`.

        Raises:
            Unavailable: the upstream is away, or its log no longer reaches back so far; `resume` tells which.
        """
        recent = self._ring.read(after, limit) if until <= self._position else None
        if recent is not None:
            return recent
        found: list[Event] = []
        async with self._readers:
            while True:
                # Whichever server answers, it need not have read as far as the one that is watched.
                told = self.cursor(max(self._position, until))
                answer = await self._list(self.cursor(after), min(MOST, limit - len(found)), told)
                if not answer.recovered:
                    raise Unavailable("the upstream's log no longer reaches back so far")
                found += _events_of(answer.events)
                if not answer.more or len(found) >= limit:
                    break
                after = decode_log_cursor(answer.cursor, "cursor").key
        return [event for event in found if event.key <= max(self._position, until)]

    async def resume(self, text: str) -> Resume:
        """Return the place of a cursor's text.

        Raises:
            Invalid: it is no cursor.
            Unavailable: the upstream has to judge it, and is away.
        """
        cursor = decode_log_cursor(text)
        if self._is_near(cursor):
            return Resume(cursor.key, recovered=True)
        if not self._epoch:
            raise Unavailable("the upstream has not been reached yet")
        answer = await self._list(text, 1)
        if answer.recovered and cursor.epoch == self._epoch:
            return Resume(cursor.key, recovered=True)
        return Resume(self._position, recovered=False)

    async def _list(self, after: str, limit: int, not_before: str = "") -> pb.ListEventsResponse:
        request = pb.ListEventsRequest(after=after, limit=limit, all_owners=True, not_before=not_before)
        try:
            answer: pb.ListEventsResponse = await self._stub.ListEvents(
                request, timeout=ANSWER_WITHIN, metadata=tuple(metadata_of(self._user))
            )
        except grpc.aio.AioRpcError as error:
            raise answered(error) from error
        return answer


def _events_of(messages: Iterable[pb.TaskEvent]) -> list[Event]:
    """Return the events that the upstream tells of.

    Raises:
        Unavailable: it is of a later version, and says what has no meaning here.
    """
    try:
        return [event_of(message) for message in messages]
    except (KeyError, ValueError) as error:
        raise Unavailable(f"the upstream says what is not understood here: {error!r}") from error
