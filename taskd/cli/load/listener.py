"""A socket on the event log: connects, says what it wants to hear, and hands on events until it is closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from taskd.cli.load.target import Refused, Target
from taskd.ws.client import ClientSocket

GREETED_WITHIN = 10.0

FIRST = b'{"type":"event"'
"""How the message of an event begins; others are few."""

REASONS = {
    4001: "the server keeps no more sockets of one user (TASKD_WS_CONNECTIONS_PER_USER)",
    4002: "the server sends faster than this process takes it (4002)",
    4003: "the token was revoked (4003)",
}


class Listener:
    """One socket.

    Args:
        target: the server.
        client: its name among the user's sockets.
        on_event: told of each event's message, not read yet, and when it came (`perf_counter`).
    """

    def __init__(self, target: Target, client: str, on_event: Callable[[bytes, float], None]) -> None:
        self._target = target
        self._client = client
        self._on_event = on_event
        self._socket: ClientSocket | None = None
        self._subscribed = asyncio.Event()

    async def open(self, kind: str, statuses: Sequence[str]) -> None:
        """Connect, and hear of these changes of this kind.

        Raises:
            Refused: the server closes it, or says nothing.
            Unavailable: there is no server.
        """
        self._socket = await self._target.socket(self._client, self._on_text)
        self._socket.send(json.dumps({"type": "subscribe", "kinds": [kind], "statuses": list(statuses)}))
        await self.while_open(self._subscribed.wait(), GREETED_WITHIN, "a socket was not greeted in time")

    async def while_open(self, waits: Any, seconds: float, late: str) -> None:
        """Wait for something as long as the socket is open.

        Raises:
            Refused: the socket was closed, or it took too long, which `late` says then.
        """
        assert self._socket is not None
        waiting = asyncio.ensure_future(waits)
        try:
            await asyncio.wait((waiting, self._socket.closed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused(self.why_closed or late)
        finally:
            waiting.cancel()

    @property
    def closed(self) -> asyncio.Future[int | None]:
        """Done when an open socket is closed."""
        assert self._socket is not None
        return self._socket.closed

    @property
    def why_closed(self) -> str | None:
        """Why it is closed, or None while it is open."""
        if self._socket is None or not self._socket.closed.done():
            return None
        code = self._socket.closed.result()
        return REASONS.get(code or 0, f"the server closed a socket ({code or 'without a word'})")

    def close(self) -> None:
        """Begin to close it. Safe twice, and before `open`."""
        if self._socket is not None:
            self._socket.close()

    def _on_text(self, message: bytes) -> None:
        if message.startswith(FIRST):
            # Until the server has taken the filter, it tells of everything.
            if self._subscribed.is_set():
                self._on_event(message, perf_counter())
        elif b'"subscribed"' in message:
            self._subscribed.set()


def task_of(message: bytes) -> dict[str, Any]:
    """Return the task of an event's message."""
    task: dict[str, Any] = json.loads(message)["event"]["task"]
    return task
