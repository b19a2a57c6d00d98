"""A listening socket that does not stop the process when there are no descriptors left.

asyncio answers a failed accept(2) with a second's pause, but goes on trying in the same turn: up to as many errors in
the log as the backlog is long, each second (python/cpython issue 151615). Here one descriptor is kept in reserve, as
libev's manual has it: it is given up to take a client whom there is no room for, who is sent away at once and does not
wait in the backlog for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from taskd.clock import monotonic

logger = logging.getLogger("taskd.http")

OUT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

SAY_EVERY = 60.0
"""Seconds between two lines about it in the log."""

NOT_SENT = 128 * 1024
"""Bytes that the kernel keeps for a client that takes nothing (tcp(7)); it would keep 4 MiB for each, which nobody sees
and nobody bounds. What is on its way to one that reads is not counted."""


class Reserve:
    """One descriptor, to be given up in need."""

    def __init__(self) -> None:
        self._number: int | None = None
        self.take()

    def take(self) -> None:
        """Have it, if there is one to be had."""
        if self._number is None:
            try:
                self._number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._number = None

    def give(self) -> bool:
        """Give it up; return whether there was one."""
        number, self._number = self._number, None
        if number is not None:
            os.close(number)
        return number is not None


class ListeningSocket(socket.socket):
    """One address that is listened on. `relieve` is called when descriptors have run out."""

    relieve: Callable[[], object] | None = None
    _reserve: Reserve | None = None
    _pausing = False
    _said = float("-inf")
    _sent_away = 0

    def keep_reserve(self, relieve: Callable[[], object]) -> None:
        """Hold a descriptor back from now on."""
        self.relieve = relieve
        self._reserve = Reserve()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; as the original, but that no error of descriptors comes out.

        Raises:
            BlockingIOError: there is none that could be taken now.
        """
        if self._pausing:
            self._pausing = False
            raise BlockingIOError(errno.EAGAIN, "no descriptors left")
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in OUT or self._reserve is None:
                raise
            fault = error
        self._say(fault)
        if self.relieve is not None:
            self.relieve()
        if not self._reserve.give():
            # Others were faster to take it. Then the loop shall pause; but not go on to try in this turn.
            self._reserve.take()
            self._pausing = True
            raise fault
        with contextlib.suppress(OSError):
            super().accept()[0].close()
            self._sent_away += 1
        self._reserve.take()
        # To the loop: no more for now. What waits in the backlog makes it come back with its next turn.
        raise BlockingIOError(errno.EAGAIN, "no descriptors left")

    def close(self) -> None:
        """Close it, and what it held back."""
        if self._reserve is not None:
            self._reserve.give()
            self._reserve = None
        super().close()

    def _say(self, fault: OSError) -> None:
        now = monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            logger.error("no connection can be taken: %s; %d were sent away so far", fault.strerror, self._sent_away)


async def listen(host: str, port: int, backlog: int) -> list[ListeningSocket]:
    """Return sockets that are bound to all addresses of `host`, as `loop.create_server` would.

    Raises:
        OSError: an address is taken, or not this machine's.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[ListeningSocket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(listening := ListeningSocket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                # Those that are accepted inherit it.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(backlog)
            listening.setblocking(False)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets
