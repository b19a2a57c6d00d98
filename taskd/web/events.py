"""`GET /events`: the event log as Server-Sent Events (HTML standard, section 9.2).

A stream pulls: it reads the log at its own client's speed, out of the feed's ring or out of the database, so it needs
no queue, and a slow client holds up nobody and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from taskd.domain.codec import dump_json
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.event import Event, EventKey
from taskd.domain.fields import Bad, Text
from taskd.domain.forms import Entry, Form
from taskd.domain.model import User
from taskd.errors import Fault, Invalid, RateLimited, Unavailable
from taskd.service.ports import Feed, Hold, Resume
from taskd.web.message import Request, Sink, Stream

EVENT_STREAM = "text/event-stream"

BATCH = 200
"""Events that are read and written at once."""

PIECE = 64 * 1024
"""Bytes that are encoded ahead of what the client has taken, but for one event."""

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent: proxies drop what is silent, and a dead client is noticed."""

AGAIN = 10.0
"""Seconds after which one who has too many streams may ask for another."""

CURSOR = Text(1, 100)
QUERY = Form({"after": Entry(CURSOR, "cursor behind which the events begin; left out: from now on", None)})


class EventStreams:
    """Makes streams of the log; each lives as long as its client.

    Args:
        feed: the log.
        hold: tells of the end of a caller's token; the stream ends with it.
        per_user: streams of one user at once.
        heartbeat: seconds; see `HEARTBEAT`.
    """

    def __init__(self, feed: Feed, hold: Hold, per_user: int, heartbeat: float = HEARTBEAT) -> None:
        self._feed = feed
        self._hold = hold
        self._per_user = per_user
        self._open: Counter[str] = Counter()
        self._heartbeat = heartbeat

    async def open(self, request: Request) -> Stream:
        """Answer `GET /events`. `Last-Event-ID` is of the reconnecting client, so it wins over `after`.

        Raises:
            Invalid: no cursor.
            RateLimited: the user has too many streams.
            Unavailable: the database is needed to judge the cursor, and is away.
        """
        name = request.user.name
        if self._open.get(name, 0) >= self._per_user:
            raise RateLimited(f"you have {self._per_user} streams already", retry_after=AGAIN)
        after = _cursor(request)
        if after is None:
            resume, recovered = Resume(self._feed.position, recovered=True), None
        else:
            resume = await self._feed.resume(after)
            recovered = resume.recovered

        async def run(sink: Sink) -> None:
            streaming = asyncio.current_task()
            assert streaming is not None, "a stream runs in the task of its request"
            release = self._hold(request.user, lambda: _cancel(streaming))
            self._open[name] += 1
            try:
                await greet(sink)
                await self._follow(sink, request.user, resume.key)
            finally:
                release()
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]

        async def greet(sink: Sink) -> None:
            cursor = self._feed.cursor(resume.key)
            hello = dump_json({"type": "welcome", "user": request.user.name, "cursor": cursor, "recovered": recovered})
            await sink.write(f"event: welcome\nid: {cursor}\ndata: {hello}\n\n".encode())

        return Stream(run, EVENT_STREAM, [("Cache-Control", "no-store")])

    async def _follow(self, sink: Sink, user: User, sent: EventKey) -> None:
        news = asyncio.Event()
        leave = self._feed.subscribe(lambda _: news.set())
        try:
            while True:
                news.clear()
                before = self._feed.position
                try:
                    events = await self._feed.read(sent, BATCH)
                except Unavailable:
                    # The client comes back with the last id that it saw.
                    return
                for piece in self._encode(user, events):
                    await sink.write(piece)
                if events:
                    sent = events[-1].key
                if len(events) == BATCH:
                    continue
                sent = max(sent, before)
                await self._silence(sink, news)
        finally:
            leave()

    async def _silence(self, sink: Sink, news: asyncio.Event) -> None:
        """Wait for news, with a heartbeat now and then."""
        while not news.is_set():
            try:
                async with asyncio.timeout(self._heartbeat):
                    await news.wait()
            except TimeoutError:
                await sink.write(b":\n\n")

    def _encode(self, user: User, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield what the user may see, in pieces of about `PIECE` bytes: tasks may be large, and clients slow."""
        piece = bytearray()
        for event in events:
            if user.sees_all or event.task.owner == user.name:
                cursor = self._feed.cursor(event.key)
                piece += b"event: %b\nid: %b\ndata: %b\n\n" % (event.type.encode(), cursor.encode(), event.json)
                if len(piece) >= PIECE:
                    yield bytes(piece)
                    piece.clear()
        yield bytes(piece)


def _cancel(streaming: asyncio.Task[object]) -> None:
    streaming.cancel()


def _cursor(request: Request) -> str | None:
    header = request.head.get(b"last-event-id")
    if not header:
        after: str | None = request.args.get("after")
        if after is not None:
            decode_log_cursor(after)
        return after
    text = CURSOR.check(header.decode("utf-8", "surrogateescape"))
    if isinstance(text, Bad):
        raise Invalid([Fault("Last-Event-ID", text.message)])
    decode_log_cursor(text, "Last-Event-ID")
    return text
