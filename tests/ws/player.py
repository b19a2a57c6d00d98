"""Plays frames at a WebSocket server and says what came back: for cases written down as bytes.

All is sent at once, and a close when what is wanted has come back; nothing waits for time to pass.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPORA = Path(os.environ.get("TASKD_CORPORA") or Path(__file__).resolve().parents[3] / "shared" / "corpora")
"""Cases of other suites; not part of the project."""

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
WITHIN = 20.0

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return a frame as it is told to be, right or wrong (RFC 6455 5.2)."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mark = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes([first, mark | len(data)])
    elif len(data) < 65536:
        head = bytes([first, mark | 126]) + len(data).to_bytes(2)
    else:
        head = bytes([first, mark | 127]) + len(data).to_bytes(8)
    if not masked:
        return head + data
    mask = b"\x37\xfa\x21\x3d"
    key = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)])
    return head + mask + (int.from_bytes(data) ^ key).to_bytes(len(data))


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a close frame (RFC 6455 5.5.1)."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


@dataclass
class Seen:
    """What the server did; `events` as the cases write them."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    close: int | None = None
    """The code of its close frame; 0 if it had none; None if there was no such frame."""
    reason: bytes = b""
    faults: list[str] = field(default_factory=list)
    """What no server may do."""


@dataclass
class Player:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: Seen = field(default_factory=Seen)
    partial: tuple[int, bytes] | None = None

    async def one(self) -> bool:
        """Read one frame; return whether there may be more."""
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            data = await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.seen.faults.append("the stream ends within a frame")
            return False
        if second & 0x80:
            self.seen.faults.append("a masked frame")  # RFC 6455 5.1
        if first & 0x70:
            self.seen.faults.append("a reserved bit")  # RFC 6455 5.2
        self.take(first & 0x80 != 0, first & 15, data)
        return True

    def take(self, fin: bool, opcode: int, data: bytes) -> None:
        if self.seen.close is not None:
            self.seen.faults.append("a frame behind the close frame")  # RFC 6455 5.5.1
        if opcode == CLOSE:
            self.seen.close, self.seen.reason = int.from_bytes(data[:2]), data[2:]
        elif opcode in (PING, PONG):
            self.seen.events.append(("ping" if opcode == PING else "pong", base64.b64encode(data).decode()))
        else:
            kind, before = (opcode, b"") if self.partial is None else self.partial
            self.partial = (kind, before + data)
            if fin:
                self.partial = None
                self.seen.events.append(("message", base64.b64encode(before + data).decode(), kind == BINARY))


async def play(
    address: str, pieces: Sequence[bytes], path: str = "/", done: Callable[[Seen], bool] = lambda seen: False
) -> Seen:
    """Open a socket, send pieces, and return what comes until the server ends the connection.

    Args:
        address: `host:port`.
        pieces: frames or parts of such.
        path: of the socket.
        done: says that what is wanted has come, so that a close is sent.
    """
    host, port = address.rsplit(":", 1)
    async with asyncio.timeout(WITHIN):
        player = Player(*await asyncio.open_connection(host, int(port)))
        player.writer.write(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %b\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n" % (path.encode(), address.encode(), KEY)
        )
        head = await player.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert base64.b64encode(hashlib.sha1(KEY + GUID).digest()) in head  # RFC 6455 4.2.2

        async def send() -> None:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    player.writer.write(piece)
                    await player.writer.drain()

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            with contextlib.suppress(ConnectionError):
                waits = not done(player.seen)
                if not waits:
                    await sending
                    player.writer.write(close())
                while await player.one():
                    if waits and done(player.seen):
                        waits = False
                        player.writer.write(close())
            sending.cancel()
        player.writer.close()
        with contextlib.suppress(ConnectionError):
            await player.writer.wait_closed()
    return player.seen


def corpus() -> list[dict[str, Any]]:
    """Return the cases of the Autobahn suite, or none when they are not there."""
    path = CORPORA / "ws_cases.json"
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return found


def pieces_of(case: dict[str, Any]) -> list[bytes]:
    """Return what a case sends; its waits are left out, see the module."""
    pieces: list[bytes] = []
    for name, *values in case["actions"]:
        if name == "send-big":
            # The size is that of the frame, 14 bytes of it head and mask.
            pieces.append(frame(TEXT, b"*" * (values[0] - 14)))
        elif name == "send":
            data, chop = base64.b64decode(values[0]), values[1] or len(values[0])
            pieces += [data[at : at + chop] for at in range(0, len(data), chop)]
    return pieces


def closes(case: dict[str, Any]) -> bool:
    """Return whether a case has a close frame of its own, or wants one of the server."""
    own = any(name == "send" and base64.b64decode(values[0])[:1] == b"\x88" for name, *values in case["actions"])
    return own or case["expectedClose"].get("closedByMe") is False


def allowed(case: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    """Return the rows of events that a case allows."""
    return [[tuple(event) for event in events if event[0] != "timeout"] for events in case["expected"].values()]


def faults_of(case: dict[str, Any], seen: Seen) -> list[str]:
    """Return what is wrong with how a server took a case."""
    faults = list(seen.faults)
    if case["id"] == "7.1.6" or case["id"].startswith("7.13"):
        # The suite judges them not.
        return faults
    if seen.events not in allowed(case):
        faults.append(f"events {[(event[0], event[1][:12]) for event in seen.events][:5]}")
    ends = case["expectedClose"]
    if ends:
        if ends.get("requireClean") and seen.close is None:
            faults.append("no close frame")
        if seen.close and seen.close not in ends["closeCode"]:
            faults.append(f"closed with {seen.close}, not {ends['closeCode']}")
    return faults
