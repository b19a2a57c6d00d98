"""How many file descriptors the process may have (getrlimit(2)), and how many of them clients get."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from typing import NamedTuple

RESERVED = 96
"""For what is not a client: database, listener, Redis, gRPC's own, files; and for connections that are being accepted
or closed."""

MOST = 1024 * 1024
"""Assumed where there is no limit."""


def limit() -> int:
    """Return how many descriptors the process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int:
    """Let the process have as many descriptors as it is allowed to have, and return how many.

    The soft limit is low for the sake of programs that use select(2), which this is none of.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # Not allowed here; then what there is is shared out.
        return limit()
    return limit()


def reset_at_close(found: socket.socket) -> None:
    """Have the connection reset when it is closed, and what is unsent discarded (socket(7), SO_LINGER of 0)."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(transport: asyncio.Transport) -> None:
    """Drop a connection; one whose client takes nothing, at both ends, or the kernel would keep what it has for it."""
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is not None and transport.get_write_buffer_size():
        reset_at_close(found)
    transport.abort()


class Shares(NamedTuple):
    """Connections that there are descriptors for: HTTP, and WebSockets.

    Each has a share of its own, so that neither can keep the other out.
    """

    http: int
    sockets: int

    @classmethod
    def of(cls, descriptors: int, http: int, sockets: int) -> Shares:
        """Return how many there may be of the numbers that are wanted. At least eight of each, come what may."""
        room = max(descriptors - RESERVED, 0)
        # A fifth of the sockets' half is for those that are being closed.
        return cls(min(http, max(room // 2, 8)), min(sockets, max(room * 2 // 5, 8)))
