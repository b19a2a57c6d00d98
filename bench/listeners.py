"""Sockets that count what they are sent, for `bench.fanout`.

    python -m bench.listeners PORT SOCKETS SECONDS [--at-once EVENTS] [--token TOKEN]

Connects so many WebSockets, and sets off events: by POSTs where there is a token, else by what the first socket says.
The next are set off when all sockets have those before. Says `ready`, waits for a line, and prints as JSON how many
events there were in how many seconds, and how large their frames were.

So that it takes little time of its own, it does not read what comes of one event at a time: that a socket has more to
be read is told for a thousand sockets at once (epoll(7), `EPOLLET`). After ten events it reads and counts all of it,
while the clock stands.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import time

BUFFER = 256 * 1024
UNREAD = 10
"""Events that wait in the sockets before they are read: no more than fit into their buffers."""

FEWEST = 2
"""Times ten events, or those at once, of a turn."""

WITHIN = 30.0
HELLO = (
    "GET /ws?client=c{n} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
)
POST = (
    "POST /tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {n}\r\n{fields}\r\n"
)
TASK = b'{"title":"Compress the video","kind":"nobody","payload":{"name":"a.mov","size":12}}'
SAYING = b"\x81\x82\0\0\0\0go"
PING, PONG = 0x89, 0x8A


class Listeners:
    """So many sockets on one port, and how many text frames came of them."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._edges = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._parts: dict[int, bytes] = {}
        """What came of a frame that is not whole."""
        self._fields = f"Authorization: Bearer {token}\r\n" if token else ""
        self._buffer = memoryview(bytearray(BUFFER))
        self._posters: list[socket.socket] = []
        self.frames = 0
        """That were read."""
        self.size = 0
        """Bytes of the last one."""

    def connect(self, number: int, posters: int) -> None:
        """Open them, each when the one before has been answered, and read what they are greeted with."""
        for n in range(number):
            one = self._connected()
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
            self._sockets[one.fileno()] = one
            self._parts[one.fileno()] = b""
            self._take(one.fileno(), data.partition(b"\r\n\r\n")[2])
        if self._fields:
            self._posters = [self._connected() for _ in range(posters)]
            # With a token there is a greeting, which is no event.
            self.read_all(number)
        for one in self._sockets.values():
            self._edges.register(one, select.EPOLLIN | select.EPOLLET)
        self.frames = 0

    def _connected(self) -> socket.socket:
        one = socket.create_connection(("127.0.0.1", self._port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return one

    def ten(self) -> float:
        """Set off ten events, each when all sockets have the one before; return the seconds."""
        self._edges.poll(0, len(self._sockets))
        begun = time.perf_counter()
        for _ in range(UNREAD):
            self._begin(1)
            told = 0
            while told < len(self._sockets):
                found = len(self._edges.poll(WITHIN, len(self._sockets)))
                told += found
                if not found:
                    raise SystemExit(f"only {told} of {len(self._sockets)} sockets were told in time")
            self._end(1)
        took = time.perf_counter() - begun
        self.read_all(UNREAD * len(self._sockets))
        return took

    def burst(self, number: int) -> float:
        """Set off so many events at once, and read until all sockets have them; return the seconds."""
        begun = time.perf_counter()
        self._begin(number)
        self.read_all(number * len(self._sockets))
        took = time.perf_counter() - begun
        self._end(number)
        return took

    def _begin(self, number: int) -> None:
        if self._fields:
            for one in self._posters[:number]:
                one.sendall(POST.format(n=len(TASK), fields=self._fields).encode() + TASK)
        else:
            next(iter(self._sockets.values())).sendall(SAYING * number)

    def _end(self, number: int) -> None:
        for one in self._posters[:number]:
            answer = one.recv(BUFFER)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise SystemExit(f"an event was refused: {answer!r}")

    def read_all(self, number: int) -> None:
        """Read until there were so many frames."""
        until = time.monotonic() + WITHIN
        with select.epoll() as poll:
            for fd in self._sockets:
                poll.register(fd, select.EPOLLIN)
            while self.frames < number:
                if time.monotonic() > until:
                    raise SystemExit(f"only {self.frames} of {number} frames came in time")
                for fd, _ in poll.poll(1, 1024):
                    self._read(fd)
        if self.frames > number:
            raise SystemExit(f"{self.frames} frames came, and not {number}")
        self.frames = 0

    def _read(self, fd: int) -> None:
        got = self._sockets[fd].recv_into(self._buffer)
        if not got:
            raise SystemExit("a socket was closed")
        buffer = self._buffer
        if self.size and not got % self.size and not self._parts[fd]:
            whole = got // self.size
            if all(buffer[n * self.size] == 0x81 for n in range(whole)):
                self.frames += whole
                return
        self._take(fd, bytes(buffer[:got]))

    def _take(self, fd: int, data: bytes) -> None:
        """Look at frames one by one, and answer pings."""
        data = self._parts[fd] + data
        while len(data) >= 2:
            start, length = 2, data[1]
            if length == 126:
                if len(data) < 4:
                    break
                start, length = 4, int.from_bytes(data[2:4], "big")
            end = start + length
            if len(data) < end:
                break
            if data[0] == PING:
                pong = struct.pack("BBI", PONG, 0x80 | length, 0) + data[start:end]
                self._sockets[fd].sendall(pong)
            else:
                self.frames, self.size = self.frames + 1, end
            data = data[end:]
        self._parts[fd] = data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("sockets", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--token", default="")
    asked = parser.parse_args()
    listeners = Listeners(asked.port, asked.token)
    listeners.connect(asked.sockets, asked.at_once)
    events, seconds, times = 0, 0.0, 0
    # The first ones make what is made once; the frame's size is known from then on.
    listeners.burst(1)
    listeners.burst(1)
    print("ready", flush=True)
    sys.stdin.readline()
    while times < FEWEST or seconds < asked.seconds:
        seconds += listeners.ten() if asked.at_once == 1 else listeners.burst(asked.at_once)
        events += UNREAD if asked.at_once == 1 else asked.at_once
        times += 1
    print(json.dumps({"events": events, "seconds": seconds, "size": listeners.size}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
