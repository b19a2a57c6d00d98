"""Catching up: what a client missed, then what happens now, without a gap and without a repetition.

The reader follows the log by itself until it has reached the feed's position. The check that it has, and the step to
taking the feed's batches, happen without an await between them, so no event falls between the two; and the connection
skips whatever is not behind the last key that the reader took.

A client that is far behind is no slow consumer as long as it reads: here the sender can wait, so it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from taskd.domain.event import EventKey
from taskd.errors import Invalid, Unavailable
from taskd.runtime.backoff import Backoff
from taskd.service.ports import Feed
from taskd.ws.connection import Connection
from taskd.ws.frames import event_frame

logger = logging.getLogger("taskd.ws")

READ = 100
"""Events of one read. An event may carry 256 KiB of payload, and as many clients resume at once as come."""

WRITE = 64 * 1024
"""Bytes that are gathered before they are written."""

TRIES = 8
"""Reads in a row that may fail, over about nine seconds; then the client is asked to come again."""

Pause = Callable[[float], Awaitable[None]]


class Resumer:
    """Brings one connection from a cursor to the present.

    Args:
        feed: the log.
        connection: registered, not yet greeted.
        pause: sleeps for some seconds.
    """

    def __init__(self, feed: Feed, connection: Connection, pause: Pause = asyncio.sleep) -> None:
        self._feed = feed
        self._connection = connection
        self._pause = pause
        self._backoff = Backoff(0.1, 2.0)
        self._failures = 0
        self.sent = 0

    async def run(self, after: str) -> int:
        """Greet, send what was missed, and make the connection live; return the number of events sent.

        Ends early, with the connection closed, when the log stays away (1013) or `after` is no cursor of it (1008).
        """
        while self._connection.open:
            try:
                place = await self._feed.resume(after)
                break
            except Unavailable as error:
                await self._failed(error)
            except Invalid as error:
                self._connection.fail(1008, str(error))
        else:
            return 0
        self._connection.greet(self._feed.cursor(place.key), place.recovered)
        await self._catch_up(place.key)
        return self.sent

    async def _catch_up(self, sent: EventKey) -> None:
        while self._connection.open:
            before = self._feed.position
            try:
                events = await self._feed.read(sent, READ)
            except Unavailable as error:
                await self._failed(error)
                continue
            self._failures = 0
            self._backoff.reset()
            gathered: list[bytes] = []
            size = 0
            for event in events:
                if self._connection.wants(event):
                    frame = event_frame(event, self._feed.cursor(event.key))
                    gathered.append(frame)
                    size += len(frame)
                    if size >= WRITE:
                        await self._write(gathered)
                        gathered, size = [], 0
            await self._write(gathered)
            if events:
                sent = events[-1].key
            if len(events) < READ:
                # There was nothing more, so all up to where the feed was before has been seen.
                sent = max(sent, before)
            if sent >= self._feed.position:
                self._connection.go_live(sent)
                return
            await asyncio.sleep(0)

    async def _write(self, gathered: list[bytes]) -> None:
        if gathered and self._connection.write(b"".join(gathered)):
            self.sent += len(gathered)
            await self._connection.drained()

    async def _failed(self, error: Unavailable) -> None:
        self._failures += 1
        if self._failures >= TRIES:
            logger.warning("a client could not catch up: %s", error)
            self._connection.close(1013, "the event log is away; come again", "unavailable")
            return
        await self._pause(self._backoff.next())
