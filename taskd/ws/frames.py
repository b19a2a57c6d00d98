"""What is sent: complete unmasked frames without compression, made once for all who get them."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.frames import Frame, Opcode

from taskd.domain.codec import dump_json
from taskd.domain.event import Event
from taskd.domain.model import User
from taskd.service.ports import Feed

CLOSE_REASON_BYTES = 123
"""RFC 6455 5.5: a control frame carries 125 bytes, two of them the code."""


def text_frame(payload: bytes) -> bytes:
    """Return a text frame (RFC 6455 5.6); `payload` is UTF-8."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


def binary_frame(payload: bytes) -> bytes:
    """Return a binary frame (RFC 6455 5.6)."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


PING = Frame(Opcode.PING, b"").serialize(mask=False)
"""The same for all: any pong says that the other side lives (RFC 6455 5.5.3), so none needs a mark."""

SUBSCRIBED = text_frame(b'{"type":"subscribed"}')
PONG = text_frame(b'{"type":"pong"}')


def welcome_frame(user: User, client: str, cursor: str, recovered: bool | None) -> bytes:
    """Return the frame that greets a client; `cursor` is where its events begin."""
    greeting = {
        "type": "welcome",
        "user": user.name,
        "client": client,
        "cursor": cursor,
        "recovered": recovered,
    }
    return text_frame(dump_json(greeting).encode())


def event_frame(event: Event, cursor: str) -> bytes:
    """Return the frame of an event; `cursor` is the place behind it."""
    return text_frame(b'{"type":"event","cursor":"%b","event":%b}' % (cursor.encode("ascii"), event.json))


def close_reason(text: str) -> str:
    """Return as much of `text` as a close frame carries, cut between characters."""
    return text.encode("utf-8", "replace")[:CLOSE_REASON_BYTES].decode("utf-8", "ignore")


class Batch:
    """Consecutive events of the log, one at least, with their frames; each is made once, and so is their sum."""

    __slots__ = ("events", "first", "frames", "joined", "last", "told", "told_all")

    def __init__(self, events: Sequence[Event], frames: Sequence[bytes]) -> None:
        self.events = events
        self.frames = frames
        self.first = events[0].key
        self.last = events[-1].key
        self.joined = frames[0] if len(frames) == 1 else b"".join(frames)
        """All frames, one behind the other."""
        self.told_all = 0
        """How many connections were sent the whole batch."""
        self.told = [0] * len(events)
        """How many were sent each event, besides those."""

    @classmethod
    def of(cls, feed: Feed, events: Sequence[Event]) -> Batch:
        """Encode events."""
        return cls(events, [event_frame(event, feed.cursor(event.key)) for event in events])

    def by_owner(self) -> dict[str, Batch]:
        """Return the part of each owner."""
        if len({event.task.owner for event in self.events}) == 1:
            return {self.events[0].task.owner: self}
        parts: dict[str, tuple[list[Event], list[bytes]]] = {}
        for event, frame in zip(self.events, self.frames, strict=True):
            events, frames = parts.setdefault(event.task.owner, ([], []))
            events.append(event)
            frames.append(frame)
        return {owner: Batch(events, frames) for owner, (events, frames) in parts.items()}
