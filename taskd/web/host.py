"""What a connection is at, and what it needs of the server that it is one of."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from taskd.clock import Clock
from taskd.http1.head import HeadMemo
from taskd.http1.limits import Limits
from taskd.metrics.catalog import Catalog
from taskd.runtime.budget import Budget
from taskd.runtime.supervisor import Supervisor
from taskd.web.message import Handler, Request, Response

if TYPE_CHECKING:
    from taskd.web.upgrade import Upgrader

C = TypeVar("C")

READ_SIZE = 16 * 1024
"""Bytes of one read."""

READ_AHEAD = 64 * 1024
"""Bytes that may come in while an answer is due; then reading pauses."""

LEAST = 16 * 1024
"""Bytes that a client must take of an answer in the time that it has; one that takes less does not read."""


class Phase(enum.Enum):
    """What a connection is at."""

    IDLE = "between requests"
    HEAD = "reading a head"
    BODY = "reading a body"
    ANSWER = "answering"
    LINGER = "reading what is left, to throw it away"
    CLOSING = "sending what is left"


class Times(NamedTuple):
    """Seconds that a client has: for a head, for a body, between requests, to take an answer, to go."""

    head: float = 10.0
    body: float = 30.0
    idle: float = 75.0
    write: float = 30.0
    linger: float = 5.0

    def of(self, phase: Phase) -> float | None:
        """Return the seconds that it may be at this; None: as long as it takes, or as is said elsewhere."""
        if phase is Phase.IDLE:
            return self.idle
        if phase is Phase.HEAD:
            return self.head
        if phase is Phase.BODY:
            return self.body
        return self.linger if phase is Phase.LINGER else None


class Host(Protocol[C]):
    """The server, as its connections `C` see it."""

    handle: Handler
    upgrader: Upgrader | None
    limits: Limits
    memo: HeadMemo
    times: Times
    clock: Clock
    supervisor: Supervisor
    catalog: Catalog
    draining: bool
    coming: Budget[C]
    unsent: Budget[C]
    fresh: dict[C, None]
    """Those who have asked nothing yet, the oldest first."""
    idle: dict[C, None]
    """Those who are between two requests, the one that is for longest first."""

    def opened(self, connection: C) -> None: ...

    def closed(self, connection: C) -> None: ...

    def again(self, connection: C, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the answer to a request with these very bytes, if it is known; the connection is idle anew then."""

    def keep(self, request: Request, answer: Response) -> None:
        """Take note of an answer, over a connection that goes on."""

    def begin(self, body: int) -> None:
        """Take on a request with a body of this size; call `end` then.

        Raises:
            BadRequest: 503; it can't be worked on now.
        """

    def end(self, body: int) -> None: ...
