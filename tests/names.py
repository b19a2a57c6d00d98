"""A DNS server for tests: every name has the addresses that the test gives it (RFC 1035)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

A, INTERNET = 1, 1
ANSWER = 0x8180
"""Flags: an answer, with recursion, without a fault."""

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
"""Addresses of this machine."""


class Names(asyncio.DatagramProtocol):
    """Answers each question for an IPv4 address with `addresses`, and any other with nothing."""

    def __init__(self) -> None:
        self.address = ""
        self.addresses = [FIRST, SECOND]
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self.asked += 1
        end = data.index(0, 12) + 5
        (kind,) = struct.unpack_from(">H", data, end - 4)
        records = [
            # 0xC00C: the name that was asked for.
            struct.pack(">HHHIH", 0xC00C, A, INTERNET, 0, 4) + socket.inet_aton(address)
            for address in (self.addresses if kind == A else ())
        ]
        head = struct.pack(">2sHHHHH", data[:2], ANSWER, 1, len(records), 0, 0)
        self._transport.sendto(b"".join((head, data[12:end], *records)), addr)


@contextlib.asynccontextmanager
async def naming() -> AsyncIterator[Names]:
    """Run a server on a port of its own."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, local_addr=(FIRST, 0))
    try:
        yield names
    finally:
        transport.close()


def free_port() -> int:
    """Return a port that is free on both addresses."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind((FIRST, 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError):
                other.bind((SECOND, port))
                return port
