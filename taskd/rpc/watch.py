"""`WatchTasks`: the event log as a stream, from a cursor on.

A watch first catches up: it reads the log at its own caller's speed, so being far behind costs nothing but time. Then
it is live: the feed's batches are put into its queue, bounded in bytes, and a caller who lets it fill is sent away, as
slow sockets are; it comes back with its cursor and misses nothing.

An event is encoded once, whoever gets it: `events` is a repeated field, and so the entries of an answer are the
concatenation of the entries' bytes (Protocol Buffers, "Encoding").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from taskd.cache.ttl import TTLCache
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.event import Event, EventKey
from taskd.domain.fields import Bad, Id
from taskd.domain.forms import KIND
from taskd.errors import Fault, Invalid, RateLimited, StaleVersion, TaskdError, Unavailable
from taskd.rpc.calls import Send
from taskd.rpc.messages import STATUS_OF, event_message, timestamp
from taskd.service.ports import Feed
from taskd.v1 import taskd_pb2 as pb

READ = 100
"""Events of one read at the most. One may be of a megabyte, and as many callers resume at once as come: the first read
is of one event, and each of as many as would have been about `BEHIND` bytes when the last one was taken."""

PATIENCE = 60.0
"""Seconds that a caller may take to read one answer."""

ANSWER = 64 * 1024
"""Bytes of events that are sent at once, but for one event."""

BEHIND = 1024 * 1024
"""Bytes that may wait for a live caller."""

HEARTBEAT = 15.0
"""Seconds of silence after which an answer without events is sent, so that both sides know that the other is there."""

MOST = 100
"""Entries of each filter."""

KEPT, KEPT_BYTES, KEPT_FOR = 2000, 8 * 1024 * 1024, 60.0
"""Events that are kept encoded."""

Sees = Callable[[Event], bool]

_ID = Id()


class LogChanged(StaleVersion):
    """The log is another one: whoever follows it must begin anew."""

    code = "log-changed"


class SlowReader(RateLimited):
    """More than `BEHIND` bytes wait for the caller."""

    code = "slow-reader"


class Watches:
    """All watches of this process.

    Args:
        feed: the log.
        heartbeat: see `HEARTBEAT`.
        patience: see `PATIENCE`.
    """

    def __init__(self, feed: Feed, heartbeat: float = HEARTBEAT, patience: float = PATIENCE) -> None:
        self._feed = feed
        self._heartbeat = heartbeat
        self._patience = patience
        self._live: set[Watch] = set()
        self._entries: TTLCache[EventKey, bytes] = TTLCache(ttl=KEPT_FOR, entries=KEPT, size=KEPT_BYTES)
        self._stopping = False

    async def run(self, request: pb.WatchTasksRequest, sees: Sees, send: Send) -> None:
        """Send events until the caller goes away, or has to.

        Raises:
            Invalid: a filter or the cursor.
            Unavailable: the server stops, or can't read the log.
            SlowReader, LogChanged: call again with the last cursor, or without one.
        """
        wants = _filter(request, sees)
        if request.after:
            decode_log_cursor(request.after)
            place = await self._feed.resume(request.after)
            key, start = place.key, pb.WatchStart(recovered=place.recovered)
        else:
            key, start = self._feed.position, pb.WatchStart()
        watch = Watch(self._feed, wants, self._entry, send, self._heartbeat, self._patience)
        if self._stopping:
            raise _stopped()
        self._live.add(watch)
        try:
            await watch.run(key, start)
        except asyncio.CancelledError:
            if watch.ended is None:
                raise
            raise watch.ended from None
        finally:
            self._live.discard(watch)

    def reset(self) -> None:
        """End all watches: the log is another one."""
        for watch in tuple(self._live):
            watch.end(LogChanged("the event log is another one: read the tasks anew"))

    def stop(self) -> None:
        """End all watches, and take no more."""
        self._stopping = True
        for watch in tuple(self._live):
            watch.end(_stopped())

    def _entry(self, event: Event) -> bytes:
        self._entries.expire(16)
        entry = self._entries.get(event.key)
        if entry is None:
            message = event_message(event, self._feed.cursor(event.key)).SerializeToString()
            entry = b"\x0a" + _varint(len(message)) + message
            self._entries.put(event.key, entry, size=len(entry))
        return entry


class Watch:
    """One caller's watch. Its task is cancelled when it has to end while it waits for its caller to read.

    Args:
        feed: the log.
        wants: says which events it gets.
        entry: encodes an event as an entry of an answer.
        send: sends an answer.
        heartbeat: see `HEARTBEAT`.
        patience: see `PATIENCE`.
    """

    def __init__(
        self,
        feed: Feed,
        wants: Sees,
        entry: Callable[[Event], bytes],
        send: Send,
        heartbeat: float,
        patience: float,
    ) -> None:
        self.ended: TaskdError | None = None
        """Why it has to end, if it has."""
        self._feed = feed
        self._wants = wants
        self._entry = entry
        self._send = send
        self._heartbeat = heartbeat
        self._patience = patience
        self._task = asyncio.current_task()
        self._news = asyncio.Event()
        self._waiting: list[Event] = []
        # Not encoded: all who are told of a batch have its events in common, however large it is.
        self._size = 0
        self._seen = feed.position

    def end(self, error: TaskdError) -> None:
        """Make it end with this error; the first one counts."""
        if self.ended is None:
            self.ended = error
            if self._task is not None:
                self._task.cancel()

    async def run(self, key: EventKey, start: pb.WatchStart) -> None:
        """Greet, send what was missed, then what happens."""
        await self._send_in_time(self._place(key, start))
        self._seen = key
        await self._catch_up()
        # From the look at the position to here nothing was awaited, so no batch fell in between.
        leave = self._feed.subscribe(self._take)
        try:
            if self._seen > key:
                await self._send_in_time(self._place(self._seen))
            while True:
                await self._silence()
                await self._flush()
        finally:
            leave()

    async def _catch_up(self) -> None:
        """Send what is behind the place until there is no more."""
        number = 1
        while self._seen < self._feed.position:
            before = self._feed.position
            events = await self._feed.read(self._seen, number)
            self._gather(events)
            if events:
                # Maybe behind `before`: the feed goes on meanwhile.
                self._seen = events[-1].key
            if len(events) < number:
                # All up to where the feed was has been seen, also where its last events are gone.
                self._seen = max(self._seen, before)
            each = self._size // len(self._waiting) if self._waiting else 0
            number = max(1, min(READ, number * 2, BEHIND // max(1, each)))
            await self._flush()

    def _take(self, events: Sequence[Event]) -> None:
        """Put a batch of the feed's into the queue; a listener of the feed."""
        # What waited before: a reader that has taken all so far is not behind, however large a batch is.
        behind = self._size > BEHIND
        self._gather([event for event in events if event.key > self._seen])
        self._seen = max(self._seen, events[-1].key)
        if self._waiting:
            self._news.set()
        if behind:
            self.end(SlowReader(f"more than {BEHIND} bytes behind: come again with the last cursor", retry_after=0.1))

    def _gather(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._wants(event):
                self._waiting.append(event)
                self._size += _size_of(event)

    async def _silence(self) -> None:
        """Wait for news; with a sign of life now and then."""
        while not self._news.is_set():
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._news.wait()
            except TimeoutError:
                await self._send_in_time(self._place(self._seen))
        self._news.clear()

    async def _flush(self) -> None:
        """Send what waits, in pieces of about `ANSWER` bytes."""
        while self._waiting:
            piece: list[bytes] = []
            size = counted = 0
            waiting, self._waiting = self._waiting, []
            for number, event in enumerate(waiting, 1):
                entry = self._entry(event)
                piece.append(entry)
                size += len(entry)
                counted += _size_of(event)
                if size >= ANSWER or number == len(waiting):
                    await self._send_in_time(b"".join((*piece, self._place(event.key))))
                    self._size -= counted
                    piece, size, counted = [], 0, 0

    async def _send_in_time(self, answer: bytes) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._send(answer)
        except TimeoutError:
            raise SlowReader(f"nothing was read for {self._patience:g} seconds", retry_after=0.1) from None

    def _place(self, key: EventKey, start: pb.WatchStart | None = None) -> bytes:
        """Return an answer without events. Joined to entries it is one with them."""
        now = self._feed.now()
        place = pb.WatchTasksResponse(cursor=self._feed.cursor(key), start=start)
        if now is not None:
            place.now.CopyFrom(timestamp(now))
        return place.SerializeToString()


def _size_of(event: Event) -> int:
    """Return about how many bytes an event takes."""
    task = event.task
    return 512 + len(task.title) + len(task.description) + len(task.payload_json) + len(task.result_json or "")


def _filter(request: pb.WatchTasksRequest, sees: Sees) -> Sees:
    faults: list[Fault] = []
    lists = ("kinds", "statuses", "tasks")
    faults += [Fault(name, f"must have at most {MOST} items") for name in lists if len(getattr(request, name)) > MOST]
    for name, field in (("kinds", KIND), ("tasks", _ID)):
        for number, text in enumerate(getattr(request, name)):
            if isinstance(bad := field.check(text), Bad):
                faults.append(Fault(f"{name}[{number}]", bad.message))
    faults += [
        Fault(f"statuses[{number}]", "is no status")
        for number, status in enumerate(request.statuses)
        if status not in STATUS_OF
    ]
    if faults:
        raise Invalid(faults)
    kinds = frozenset(request.kinds)
    statuses = frozenset(STATUS_OF[status] for status in request.statuses)
    tasks = frozenset(map(UUID, request.tasks))

    def wants(event: Event) -> bool:
        task = event.task
        return (
            (not kinds or task.kind in kinds)
            and (not statuses or task.status in statuses)
            and (not tasks or task.id in tasks)
            and sees(event)
        )

    return wants


def _stopped() -> Unavailable:
    return Unavailable("the server stops: go on with another, from the last cursor")


def _varint(number: int) -> bytes:
    """Return a length as Protocol Buffers write it (base 128, "Encoding")."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
