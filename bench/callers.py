"""One method of gRPC called over and over, in frames written by hand, which costs little: for `bench.grpc_get`.

    python -m bench.callers PORT PATH MESSAGE_HEX SECONDS CONNECTIONS CALLS [--token TOKEN]

Keeps so many calls open on each connection. Says `ready` when it has been answered for a while, waits for a line, and
prints as JSON how many calls were answered in how many seconds, how large an answer is, and how long they took. Every
answer must have a message of that size and an end.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import struct
import sys
import time

from tests.rpc.frames import DATA, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RESET, SETTINGS, WINDOW, call, frame

MOST = 0x7FFF_FFFF
"""Of a window (RFC 9113 6.9.1)."""

WARM = 0.5
"""Seconds before it begins to count."""


class Caller:
    """One connection."""

    def __init__(self, port: int, call: bytes, calls: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Both frames of a call, without the number of its stream, which each ends its head with.
        size = int.from_bytes(call[:3], "big")
        self._parts = (call[:5], call[9 : 9 + size + 5], call[9 + size + 9 :])
        self._next = 1
        self._begun: dict[int, float] = {}
        self._left = b""
        self._taken = 0
        self.bytes = 0
        """Of messages."""
        self.took: list[float] = []
        """Seconds of each call."""
        settings = struct.pack(">HI", 4, MOST)
        self._send(PREFACE, frame(SETTINGS, 0, 0, settings), frame(WINDOW, 0, 0, struct.pack(">I", MOST - 65_535)))
        self._send(*(self._call() for _ in range(calls)))

    def _send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def _call(self) -> bytes:
        number = struct.pack(">I", self._next)
        self._begun[self._next] = time.perf_counter()
        self._next += 2
        return number.join(self._parts)

    def take(self) -> None:
        """Read what has come, and call again for each call that has ended."""
        got = self.socket.recv(1 << 20)
        if not got:
            raise SystemExit("the server has closed a connection")
        data, at, out = self._left + got, 0, []
        while len(data) >= at + 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if len(data) < end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == DATA:
                self.bytes += end - at - 9
                self._taken += end - at - 9
            elif kind == HEADERS and flags & END_STREAM:
                self.took.append(time.perf_counter() - self._begun.pop(int.from_bytes(data[at + 5 : at + 9], "big")))
                out.append(self._call())
            elif kind == SETTINGS and not flags & 1:
                out.append(frame(SETTINGS, 1, 0, b""))
            elif kind == PING and not flags & 1:
                out.append(frame(PING, 1, 0, data[at + 9 : end]))
            elif kind in (GOAWAY, RESET):
                raise SystemExit(f"the server has ended a call: {data[at:end]!r}")
            at = end
        self._left = data[at:]
        if self._taken > 1 << 24:
            out.append(frame(WINDOW, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0
        if out:
            self._send(*out)


def run(callers: list[Caller], seconds: float) -> float:
    """Call for some seconds; return how many it were."""
    with selectors.DefaultSelector() as selector:
        for one in callers:
            selector.register(one.socket, selectors.EVENT_READ, one)
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for key, _ in selector.select(1):
                key.data.take()
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("message")
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("calls", type=int)
    parser.add_argument("--token", default="")
    asked = parser.parse_args()
    message = bytes.fromhex(asked.message)
    metadata = [(b"authorization", f"Bearer {asked.token}".encode())] if asked.token else []
    whole = call(asked.path.encode(), *metadata, message=struct.pack(">BI", 0, len(message)) + message)
    callers = [Caller(asked.port, whole, asked.calls) for _ in range(asked.connections)]
    run(callers, WARM)
    print("ready", flush=True)
    sys.stdin.readline()
    for one in callers:
        one.bytes = 0
        one.took.clear()
    seconds = run(callers, asked.seconds)
    took = sorted(one for caller in callers for one in caller.took)
    p50, p99 = (statistics.quantiles(took, n=100)[n] * 1000 for n in (49, 98))
    found = {"calls": len(took), "seconds": seconds, "bytes": sum(one.bytes for one in callers), "p50": p50, "p99": p99}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
