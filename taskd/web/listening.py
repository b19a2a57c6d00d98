"""A listening socket, and what is done when there are no descriptors left.

Connections are accepted here, and not by the event loop, so that each is counted from its first moment, whichever loop
it is. And asyncio answers a failed accept(2) with a second's pause, but goes on trying in the same turn: up to as many
errors in the log as the backlog is long, each second (python/cpython issue 151615). Here one descriptor is kept in
reserve, as libev's manual has it: it is given up to take a client whom there is no room for, who is sent away at once
and does not wait in the backlog for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable

from taskd.clock import monotonic

logger = logging.getLogger("taskd.http")

OUT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "ENETDOWN", "EPROTO", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM"
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors of the connection that was to be taken, and of no other: accept(2), "Error handling", and a firewall's."""

SAY_EVERY = 60.0
"""Seconds between two lines about it in the log."""

PAUSE = 1.0
"""Seconds without an attempt when not even a client can be sent away."""

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


class Listener:
    """One address that is listened on.

    Args:
        listening: the socket.
        take: takes a connection, which does not block.
        relieve: called when descriptors have run out.
        at_once: connections that are taken in one turn of the event loop.
    """

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        relieve: Callable[[], object],
        at_once: int,
    ) -> None:
        self._listening = listening
        self._take = take
        self._relieve = relieve
        self._at_once = at_once
        self._reserve = Reserve()
        self._pause: asyncio.TimerHandle | None = None
        self._said = float("-inf")
        self._sent_away = 0

    @property
    def address(self) -> str:
        """As `host:port`."""
        host, port, *_ = self._listening.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Accept from now on."""
        self._pause = None
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Close it, and what it held back."""
        if self._pause is None:
            asyncio.get_running_loop().remove_reader(self._listening)
        else:
            self._pause.cancel()
        self._listening.close()
        self._reserve.give()

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                found, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                if fault.errno in PASSING:
                    continue
                if fault.errno not in OUT:
                    raise
                self._run_out(fault)
                return
            found.setblocking(False)
            self._take(found)

    def _run_out(self, fault: OSError) -> None:
        """Send one client away, so that it does not wait in the backlog for nothing, and have room made."""
        now = monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            logger.error("no connection can be taken: %s; %d were sent away so far", fault.strerror, self._sent_away)
        self._relieve()
        if self._reserve.give():
            with contextlib.suppress(OSError):
                self._listening.accept()[0].close()
                self._sent_away += 1
            self._reserve.take()
        else:
            # Others were faster to take it.
            self._reserve.take()
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listening)
            self._pause = loop.call_later(PAUSE, self.start)


async def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return sockets that are bound to all addresses of `host`, as `loop.create_server` would.

    Raises:
        OSError: an address is taken, or not this machine's.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(listening := socket.socket(family, kind, protocol))
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
