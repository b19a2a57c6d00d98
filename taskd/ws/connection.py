"""One client of the event log: a wire with a user, a filter, and a place in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from taskd.domain.event import LOG_START, Event, EventKey
from taskd.domain.model import User
from taskd.errors import Rejected
from taskd.ws import frames
from taskd.ws.filter import ALL, Filter, Ping, read_message
from taskd.ws.frames import Batch
from taskd.ws.protocol import SocketProtocol
from taskd.ws.wire import Wire

MAX_HELD = 16
"""Messages that a client may send before it was greeted."""


class Owner(Protocol):
    """Who keeps connections, as they see it."""

    def ponged(self, connection: Connection) -> None:
        """A pong came in."""

    def ending(self, connection: Connection) -> None:
        """Nothing can be sent to it from now on."""

    def lost(self, connection: Connection) -> None:
        """Its transport is gone."""

    def unsent(self, connection: Connection, size: int) -> None:
        """So many bytes wait for it to take them."""

    def unread(self, connection: Connection, size: int) -> None:
        """So many bytes of a message of its are here, and it is not whole."""


class Connection(Wire):
    """A client's socket. It is made by the hub, which registers it before it greets.

    Args:
        owner: the hub.
        user: whose events it gets.
        client: the client's name among those of its user.
    """

    def __init__(
        self, transport: asyncio.Transport, protocol: SocketProtocol, owner: Owner, user: User, client: str
    ) -> None:
        super().__init__(transport, protocol)
        self.user = user
        self.sees_all = user.sees_all
        """Whether events of all owners are for it."""
        self.client = client
        self.resuming: asyncio.Task[None] | None = None
        """Reads what the client missed; None once it is done."""
        self.release: Callable[[], None] = _nothing
        """Says that the end of the user's token is no longer to be told of."""
        self._owner = owner
        self._filter = ALL
        self._held: list[str] | None = []
        self._live = False
        self._sent = LOG_START

    def greet(self, cursor: str, recovered: bool | None) -> None:
        """Send the welcome, then the answers to what the client said before it."""
        self.write(frames.welcome_frame(self.user, self.client, cursor, recovered))
        held, self._held = self._held or (), None
        for message in held:
            self.text(message)

    def go_live(self, sent: EventKey) -> None:
        """Take events from `deliver` from now on, beginning behind `sent`."""
        self._sent = sent
        self._live = True

    def wants(self, event: Event) -> bool:
        """Return whether this client gets the event."""
        return (self.sees_all or event.task.owner == self.user.name) and self._filter.takes(event)

    def deliver(self, batch: Batch) -> None:
        """Send what is wanted of a batch of new events, all of which this user may see."""
        if not self._live:
            return
        if self._filter is ALL and batch.first > self._sent and self._unsent + len(batch.joined) <= self._behind:
            batch.told_all += self.write(batch.joined)
        else:
            for n, (event, frame) in enumerate(zip(batch.events, batch.frames, strict=True)):
                if event.key > self._sent and self._filter.takes(event):
                    batch.told[n] += self.write(frame)
        self._sent = max(self._sent, batch.last)

    def text(self, message: str) -> None:
        if self._held is not None:
            self._held.append(message)
            if len(self._held) > MAX_HELD:
                self.fail(1008, "too many messages before the welcome")
            return
        if not self.open:
            return
        try:
            asked = read_message(message)
        except Rejected as error:
            self.fail(1008, str(error))
            return
        if isinstance(asked, Ping):
            self.write(frames.PONG)
        else:
            self._subscribe(asked)

    def _subscribe(self, wanted: Filter) -> None:
        self._filter = ALL if wanted.takes_all else wanted
        self.write(frames.SUBSCRIBED)

    def binary(self, message: bytes) -> None:
        self.fail(1008, "only text messages are read here")

    def pong(self) -> None:
        self._owner.ponged(self)

    def ending(self) -> None:
        self._live = False
        self._held = None
        if self.resuming is not None:
            self.resuming.cancel()
        self._owner.ending(self)

    def lost(self) -> None:
        self._owner.lost(self)

    def unsent(self, size: int) -> None:
        self._owner.unsent(self, size)

    def unread(self, size: int) -> None:
        self._owner.unread(self, size)


def _nothing() -> None:
    """Stands for what the hub has not given yet."""
