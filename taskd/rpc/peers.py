"""Who makes others wait: what each connection has begun to send, and what it has been sent and does not take.

gRPC counts nothing of that. A caller that opens no window makes answers stay in memory, twice each, for as long as it
likes; one that begins requests and never ends them has a message's size kept for each. No status ends such a call: it
would have to wait behind what is not taken. So what is left is to close its connection, which frees all.

Nobody is asked to be fast. What ends a connection is one answer or request that takes far longer than a slow line
needs; when all together hold too much, it is the connection whose answer has waited for longest, not the one that asks
for the next: who takes what it is sent never has old ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count

from taskd.clock import Clock, monotonic
from taskd.errors import RateLimited
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor

logger = logging.getLogger("taskd.grpc")

PATIENCE = 60.0
"""Seconds that an answer may wait to be taken."""

SLOWEST = 128 * 1024
"""Bytes per second that a large one must be taken with beyond that."""

MOST_HELD = 32 * 1024 * 1024
"""Bytes of answers that may wait for one connection, but for a single one. gRPC keeps a copy: memory is twice that."""

START_HELD = 4 * 1024 * 1024
"""As many at first. Each byte that is taken allows for one more: who never takes any gets no more made for it, and to
come again with another connection is worth little."""

MOST_HELD_BY_ALL = 128 * 1024 * 1024
"""Bytes of answers that may wait for all."""

EACH = 4096
"""Bytes that a call takes, whatever it answers."""

ARRIVES_WITHIN = 30.0
"""Seconds from the beginning of a call to the end of its request, as of a body over HTTP."""

MOST_ARRIVING = 16
"""Requests of one connection that are received at once; others wait, with no more than their first bytes here."""

SLOW_AFTER, MOST_SLOW = 1.0, 64
"""Requests of all that may take longer than these seconds."""

MOST_STREAMS, FEW = 10_000, 8
"""Streams that are open at once; with so many, only a connection that has few gets another."""

LOOK_EVERY = 1.0
"""Seconds between looks while somebody is waited for."""


class TooMuchUnread(RateLimited):
    """The caller does not take the answers that it has."""

    code = "slow-reader"


class Peer:
    """One connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arriving: dict[int, float] = {}
        """Since when, the oldest first."""
        self.answers: dict[int, tuple[float, int]] = {}
        """Since when, and the size; the oldest first."""
        self.held = 0
        self.allowed = START_HELD
        self.streams = 0
        self.waiting = 0
        self.room = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to be known of it."""
        return not (self.arriving or self.answers or self.streams or self.waiting)


class Peers:
    """All connections that have calls.

    Args:
        sever: closes connections, given their names.
        supervisor: owns the looks.
        clock: monotonic seconds.
    """

    def __init__(
        self, sever: Callable[[Collection[str]], object], supervisor: Supervisor, clock: Clock = monotonic
    ) -> None:
        self._sever = sever
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._keys = count()
        self._held = 0
        self._streams = 0
        self._doomed: set[str] = set()
        self._rests = True
        self._service = Periodic("grpc peers", self.run_once, supervisor, Backoff(0.1, 1.0))

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def held(self) -> int:
        """Bytes of answers that wait."""
        return self._held

    def start(self) -> None:
        """Begin to look."""
        self._service.start()

    async def stop(self) -> None:
        """Look no more. Safe twice, and before `start`."""
        await self._service.stop()

    async def run_once(self) -> float | None:
        """Close the connections that have made others wait for too long; return the seconds until the next look."""
        now = self._clock()
        slow: list[tuple[int, str]] = []
        for peer in tuple(self._peers.values()):
            number = sum(since <= now - SLOW_AFTER for since in peer.arriving.values())
            late = any(since <= now - ARRIVES_WITHIN for since in peer.arriving.values())
            if late or any(now - since > PATIENCE + size / SLOWEST for since, size in peer.answers.values()):
                self._doom(peer)
            elif number:
                slow.append((number, peer.name))
        slow.sort()
        while sum(number for number, _ in slow) > MOST_SLOW:
            self._doom(self._peers[slow.pop()[1]])
        if self._doomed:
            doomed, self._doomed = self._doomed, set()
            logger.warning("%d gRPC connections are closed: they take no answers, or end no requests", len(doomed))
            self._sever(doomed)
        self._rests = not self._peers
        return None if self._rests else LOOK_EVERY

    async def enter(self, name: str) -> Callable[[], None]:
        """Wait until this connection may send one more request; return what is to be called when it has come.

        Raises:
            TooMuchUnread: it did not get its turn in time.
        """
        peer = self._peer(name)
        if len(peer.arriving) >= MOST_ARRIVING:
            peer.waiting += 1
            try:
                async with asyncio.timeout(ARRIVES_WITHIN):
                    while len(peer.arriving) >= MOST_ARRIVING:
                        peer.room.clear()
                        await peer.room.wait()
            except TimeoutError:
                raise TooMuchUnread("too many requests at once on this connection", retry_after=1.0) from None
            finally:
                peer.waiting -= 1
                self._tidy(peer)
        key = next(self._keys)
        peer.arriving[key] = self._clock()
        self._peers[name] = peer

        def arrived() -> None:
            if peer.arriving.pop(key, None) is not None:
                peer.room.set()
                self._tidy(peer)

        return arrived

    def check(self, name: str) -> None:
        """Refuse a call whose answer would have to wait.

        Raises:
            TooMuchUnread: as many bytes wait for this connection as may.
        """
        peer = self._peers.get(name)
        if peer is not None and peer.held >= peer.allowed:
            raise _unread()

    def hold(self, name: str, size: int) -> Callable[[], None]:
        """Count an answer until its caller has taken it; return what is to be called then.

        Of no bytes, as the end of a call is, it is always taken.

        Raises:
            TooMuchUnread: it would be more than may wait for this connection, or for all, and this one's is the oldest.
        """
        is_status = not size
        size += EACH
        peer = self._peer(name)
        if not is_status and peer.held and peer.held + size > peer.allowed:
            raise _unread()
        while not is_status and self._held + size > MOST_HELD_BY_ALL and self._held:
            first = min((one for one in self._peers.values() if one.answers), key=_oldest)
            if first is peer:
                raise _unread()
            self._doom(first)
            self._service.wake()
        key = next(self._keys)
        peer.answers[key] = (self._clock(), size)
        peer.held += size
        self._held += size

        def taken() -> None:
            if peer.answers.pop(key, None) is not None:
                peer.held -= size
                peer.allowed = min(MOST_HELD, peer.allowed + size)
                self._held -= size
                self._tidy(peer)

        return taken

    @contextmanager
    def stream(self, name: str) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            RateLimited: there are too many, and this connection has not few of them.
        """
        peer = self._peer(name)
        if self._streams >= MOST_STREAMS and peer.streams >= FEW:
            raise RateLimited(f"there are {self._streams} streams already", retry_after=1.0)
        peer.streams += 1
        self._streams += 1
        try:
            yield
        finally:
            peer.streams -= 1
            self._streams -= 1
            self._tidy(peer)

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(name)
            if self._rests:
                self._rests = False
                self._service.wake()
        return peer

    def _tidy(self, peer: Peer) -> None:
        if peer.is_idle and self._peers.get(peer.name) is peer:
            del self._peers[peer.name]

    def _doom(self, peer: Peer) -> None:
        """Have a connection closed. What it held counts no more: it is free in a moment."""
        self._doomed.add(peer.name)
        self._held -= peer.held
        peer.held = 0
        peer.answers.clear()
        peer.arriving.clear()
        peer.room.set()
        self._tidy(peer)


def _oldest(peer: Peer) -> float:
    return next(iter(peer.answers.values()))[0]


def _unread() -> TooMuchUnread:
    return TooMuchUnread("more answers wait for you than may: take them first", retry_after=1.0)
