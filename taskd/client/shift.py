"""One run of a worker elsewhere, from its first connection until all is given back.

There is one session with a server at a time, save while a server stops: it drains its session, and the worker goes on
with another server meanwhile. Streams break and are begun again, and the session goes on as long as the server keeps
it, which is for its lease. A server says something every third of the lease. After half of it without a word the stream
is taken for broken; after two thirds the handlers are stopped, because soon after the tasks may be another's.

The slots that a server is told of are those that no other session uses: what runs on from one that is drained, or was
lost, keeps its own. When the last of these ends, the session is begun again with all slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from itertools import chain, repeat
from typing import Any

from taskd.client.calls import Metadata
from taskd.client.hands import Hands, stop_all
from taskd.client.session import Session
from taskd.client.stream import Connect, Stream
from taskd.clock import Clock
from taskd.errors import ConfigError, TaskdError
from taskd.rpc.messages import task_of
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.execute import CANCELS
from taskd.worker.plan import Stop
from taskd.worker.registry import Registry

logger = logging.getLogger("taskd.client")

FENCE = 2 / 3
"""The part of the lease without a word from the server after which handlers are stopped."""

SETTLE_WITHIN = 5.0
"""Seconds in which results are still sent after the handlers have been stopped at the end."""

CLOSE_WITHIN = 2.0
"""Seconds that a server may take to close its side."""


class Shift:
    """Works until it is told to leave. Call `work` once, `leave` at any time, `stop` at the end.

    Args:
        connect: opens a channel.
        metadata: says who works.
        registry: the handlers.
        slots, lease, name: as of `Worker`.
        grace: seconds that a stopped handler has to tidy up, before it is cancelled again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connect: Connect,
        metadata: Metadata,
        registry: Registry,
        *,
        slots: int,
        lease: float,
        name: str,
        grace: float,
        clock: Clock,
    ) -> None:
        self.refused = 0
        self._supervisor = Supervisor()
        self.hands = Hands(registry, self._supervisor, slots, self._slot_freed, grace=grace)
        self._connect = connect
        self._metadata = metadata
        self._kinds = registry.kinds
        self._lease = lease
        self._name = name
        self._grace = grace
        self._clock = clock
        self._current: Session | None = None
        self._streams: dict[Session, Stream | None] = {}
        self._pauses = Backoff(0.1, 2.0)
        self._fencing = Periodic("fence", self.fence, self._supervisor, Backoff(0.1, 1.0))
        self._fault: str | None = None
        self._freed = asyncio.Event()
        self._leaving = asyncio.Event()
        self._done = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a server gives it tasks."""
        return self._current is not None and self._current.open

    async def work(self) -> None:
        """Work until `leave` is through; raises what a part died of."""
        self._fencing.start()
        self._begin()
        done: asyncio.Future[Any] = self._supervisor.spawn(self._done.wait(), "shift")
        await asyncio.wait({done, self._supervisor.failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._supervisor.failed.done():
            await self._supervisor.failed

    async def leave(self, within: float) -> None:
        """Take no more tasks; let handlers go on for up to `within` seconds; then stop them and give back the rest."""
        self._leaving.set()
        self._freed.set()
        for session in tuple(self._streams):
            session.leave()
        self._look_whether_done()
        if await self._done_within(within):
            return
        for session in tuple(self._streams):
            stop_all(tuple(session.running.values()), Stop.RELEASE)
        if await self._done_within(self._grace * CANCELS + SETTLE_WITHIN):
            return
        for session in tuple(self._streams):
            session.close()
        await self._done_within(CLOSE_WITHIN)
        self._done.set()

    async def stop(self) -> None:
        """End all parts, whatever they do."""
        with contextlib.suppress(TimeoutError):
            # A handler that ignores its cancellation is left behind.
            async with asyncio.timeout(self._grace):
                await self._supervisor.stop()

    async def fence(self) -> float | None:
        """Stop the handlers of sessions that may be over; return the seconds until that may be due again."""
        now = self._clock()
        left = []
        for session in tuple(self._streams):
            if not session.running:
                continue
            rest = session.heard + session.lease * FENCE - now
            if rest > 0:
                left.append(rest)
                continue
            gone = session.lose_running()
            logger.error("no word from the server for %.1f s: %d handlers are stopped", now - session.heard, len(gone))
            stop_all(gone, Stop.LOST)
        return min(left, default=None)

    # Sessions.

    def _begin(self, *, pause: bool = False) -> None:
        session = self._current = Session(self._lease, self._clock)
        self._streams[session] = None
        self._supervisor.spawn(self._serve(session, pause=pause), "session")

    async def _serve(self, session: Session, *, pause: bool = False) -> None:
        try:
            if pause:
                await self._rest()
            while not session.finished:
                slots = await self._slots_for(session)
                if session.finished:
                    break
                receive = partial(self._receive, session)
                try:
                    stream = Stream(self._connect, self._metadata, session, receive, self._supervisor)
                except ConfigError as error:
                    # A certificate that can't be read just now: it may be on its way.
                    self._tell(error)
                    await self._rest()
                    continue
                self._streams[session] = stream
                fault = await stream.run(session.hello(self._kinds, slots, self._name))
                if session.finished or session.drained:
                    # The server that drained it takes no stream again; what it has not heard by now is lost.
                    break
                if not stream.is_given_up:
                    self._tell(fault)
                    await self._rest()
        finally:
            stop_all(session.lose(), Stop.LOST)
            del self._streams[session]
            self._look_whether_done()

    async def _slots_for(self, session: Session) -> int:
        """Return the slots that no other session uses, as soon as there is one, or none is wanted any more."""
        while (slots := self.hands.slots - self.hands.busy + len(session.running)) < 1 and not session.finished:
            self._freed.clear()
            await self._freed.wait()
        return slots

    async def _rest(self) -> None:
        pause = self._pauses.next()
        if self._leaving.is_set():
            await asyncio.sleep(pause)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._leaving.wait()

    def _slot_freed(self) -> None:
        self._freed.set()
        session = self._current
        stream = None if session is None else self._streams.get(session)
        if session is None or stream is None or not session.open or session.leaving:
            return
        if session.slots < self.hands.slots and self.hands.busy == len(session.running):
            stream.give_up()

    def _tell(self, fault: TaskdError | None) -> None:
        text = "the server has closed the stream" if fault is None else str(fault)
        if text != self._fault:
            self._fault = text
            logger.warning("no work: %s; connecting again until it works", text)

    def _look_whether_done(self) -> None:
        if self._leaving.is_set() and not self._streams:
            self._done.set()

    async def _done_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._done.wait()
        return self._done.is_set()

    # Messages.

    def _receive(self, session: Session, message: pb.WorkResponse) -> None:
        if message.HasField("welcome"):
            self._welcome(session, message.welcome)
        elif message.HasField("tasks"):
            self._pauses.reset()
            # A server of before has none.
            for task, claim in zip(message.tasks.tasks, chain(message.tasks.claims, repeat(0)), strict=False):
                self.hands.take(session, task_of(task), claim)
            self._fencing.wake()
        elif message.HasField("cancel"):
            self.hands.stop(session, message.cancel)
        elif message.HasField("settled"):
            for task_id, attempt in session.settle(message.settled):
                self.refused += 1
                logger.warning("task %s attempt %d: its result was refused, it is no longer here", task_id, attempt)
        elif message.HasField("ping"):
            self._pauses.reset()
            session.ping()
        elif message.HasField("drain"):
            self._drain(session)

    def _welcome(self, session: Session, message: pb.Welcome) -> None:
        gone = session.welcome(message)
        if gone:
            logger.error("the server has ended the session: %d handlers are stopped", len(gone))
            stop_all(gone, Stop.LOST)
        if self._fault is not None:
            self._fault = None
            logger.info("connected again")
        self._slot_freed()

    def _drain(self, session: Session) -> None:
        if session.drained:
            return
        session.drained = True
        session.woken.set()
        logger.info("the server stops: going on with another one")
        if session is self._current and not self._leaving.is_set():
            # The next server may be the same one, which would say so again and again.
            self._begin(pause=True)
