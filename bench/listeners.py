"""Sockets that count what they are sent, for `bench.fanout`.

    python -m bench.listeners PORT SOCKETS SECONDS [--token TOKEN]

Connects so many WebSockets, one of which sets off each event: by a POST over a connection of its own where there is a
token, else by saying something. An event is set off when all sockets have the one before. Says `ready`, waits for a
line, and prints as JSON how many events there were in how many seconds, and how large their frames were.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import time

BUFFER = 65536
FEWEST, MOST = 5, 100_000
"""Events of a turn, however long it goes on."""

HELLO = (
    "GET /ws?client=c{n} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
)
POST = "POST /tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {n}\r\n{fields}\r\n"
TASK = b'{"title":"Compress the video","kind":"nobody","payload":{"name":"a.mov","size":12}}'
SAYING = b"\x81\x82\0\0\0\0go"
PING, PONG = 0x89, 0x8A


class Listeners:
    """So many sockets on one port, and how many text frames came of them."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._parts: dict[int, bytes] = {}
        """What came of a frame that is not whole."""
        self._fields = f"Authorization: Bearer {token}\r\n" if token else ""
        self._first: socket.socket | None = None
        self._poster: socket.socket | None = None
        self.frames = 0
        self.size = 0
        """Bytes of the last frame."""

    def connect(self, number: int) -> None:
        """Open them, each when the one before has been answered, and read what they are greeted with."""
        for n in range(number):
            one = socket.create_connection(("127.0.0.1", self._port))
            one.sendall(HELLO.format(n=n, fields=self._fields).encode())
            data = b""
            while b"\r\n\r\n" not in data:
                got = one.recv(BUFFER)
                data += got
                if not got:
                    raise SystemExit(f"socket {n} was closed: {data!r}")
            if not data.startswith(b"HTTP/1.1 101 "):
                raise SystemExit(f"socket {n} was refused: {data!r}")
            one.setblocking(False)
            self._first = self._first or one
            self._sockets[one.fileno()] = one
            self._parts[one.fileno()] = data.partition(b"\r\n\r\n")[2]
            self._poll.register(one, select.EPOLLIN)
        if self._fields:
            self._poster = socket.create_connection(("127.0.0.1", self._port))
            # With a token there is a greeting, which is no event.
            self._until(number, parsing=True)

    def event(self) -> None:
        """Set off an event, and wait until all sockets have it."""
        self.frames = 0
        if self._poster is None:
            assert self._first is not None
            self._first.sendall(SAYING)
        else:
            self._poster.sendall(POST.format(n=len(TASK), fields=self._fields).encode() + TASK)
        self._until(len(self._sockets))
        if self._poster is not None:
            answer = self._poster.recv(BUFFER)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise SystemExit(f"an event was refused: {answer!r}")

    def _until(self, number: int, *, parsing: bool = False) -> None:
        for fd in self._sockets if parsing else ():
            self._read(fd, b"")
        sockets, parts, poll = self._sockets, self._parts, self._poll.poll
        while self.frames < number:
            found = poll(30, 1024)
            if not found:
                raise SystemExit(f"only {self.frames} of {number} sockets were told in time")
            for fd, _ in found:
                data = sockets[fd].recv(BUFFER)
                if len(data) == self.size and data[0] == 0x81 and not parts[fd]:
                    self.frames += 1
                elif data:
                    self._read(fd, data)
                else:
                    raise SystemExit("a socket was closed")

    def _read(self, fd: int, data: bytes) -> None:
        """Take what comes piece by piece, and answer pings."""
        data = self._parts[fd] + data
        while len(data) >= 2:
            start, length = 2, data[1]
            if length == 126 and len(data) >= 4:
                start, length = 4, int.from_bytes(data[2:4], "big")
            end = start + length
            if len(data) < end or (length == 126 and start == 2):
                break
            if data[0] == PING:
                self._sockets[fd].sendall(struct.pack("BBI", PONG, 0x80 | length, 0) + data[start:end])
            else:
                self.frames, self.size = self.frames + 1, end
            data = data[end:]
        self._parts[fd] = data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("sockets", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--token", default="")
    asked = parser.parse_args()
    listeners = Listeners(asked.port, asked.token)
    listeners.connect(asked.sockets)
    # The first ones make what is made once; the frame's size is known from then on.
    for _ in range(3):
        listeners.event()
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    events = 0
    while events < FEWEST or (time.perf_counter() - begun < asked.seconds and events < MOST):
        listeners.event()
        events += 1
    found = {"events": events, "seconds": time.perf_counter() - begun, "size": listeners.size}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
