"""Tasks that come when they come, whether or not those before have been answered: for `bench.latency`.

    python -m bench.arrivals PORT RATE SECONDS TURN --token TOKEN [--socket]

POSTs tasks at the times of a Poisson process, which are drawn before (the turn is the seed), each on a connection that
has no other request under way; when there is none, it waits, and that counts: all is measured from the time that was
drawn. With `--socket`, a WebSocket gets the events. Prints as JSON those times, by the machine's clock, and when each
task's `created` event had come. A task's title is the turn and its number.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import socket
import time
from collections import deque

CONNECTIONS = 64
LAST = 10.0
"""Seconds after the last task in which all must have been answered and told of."""

POST = (
    "POST /tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {n}\r\n{fields}\r\n"
)
HELLO = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
)


class Arrivals:
    """The tasks of one turn."""

    def __init__(self, port: int, token: str, turn: int, times: list[float], watching: bool) -> None:
        self._turn = turn
        self._fields = f"Authorization: Bearer {token}\r\n"
        self._times = times
        """When each is to be sent, the earliest first."""
        self._free = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        self._busy: dict[socket.socket, int] = {}
        for one in self._free:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answered = 0
        self.told: dict[int, float] = {}
        """When which task's event had come."""
        self._socket = socket.create_connection(("127.0.0.1", port)) if watching else None
        self._frames = b""
        if self._socket is not None:
            self._socket.sendall(HELLO.format(fields=self._fields).encode())
            while b'"welcome"' not in self._frames:
                self._frames += self._socket.recv(65536)
            self._frames = b""
        self._created = re.compile(rb'"type":"created","task":\{"id":"[^"]*"[^{]*?"title":"%d-(\d+)"' % turn)

    def run(self) -> None:
        """Send all, and wait for what is to come.

        Raises:
            SystemExit: not all of it came.
        """
        due: deque[int] = deque()
        sent, all_, until = 0, len(self._times), self._times[-1] + LAST
        while self._answered < all_ or (self._socket is not None and len(self.told) < all_):
            now = time.time()
            if now > until:
                raise SystemExit(f"{self._answered} of {all_} tasks were answered, and {len(self.told)} told of")
            while sent < all_ and self._times[sent] <= now:
                due.append(sent)
                sent += 1
            while due and self._free:
                self._post(self._free.pop(), due.popleft())
            # By select(2), which takes microseconds.
            wait = max(0.0, self._times[sent] - time.time()) if sent < all_ else 0.1
            watched = [*self._busy] + ([] if self._socket is None else [self._socket])
            for one in select.select(watched, (), (), wait)[0]:
                if one is self._socket:
                    self._listen()
                else:
                    self._answer(one)

    def _post(self, one: socket.socket, number: int) -> None:
        body = f'{{"title":"{self._turn}-{number}","kind":"bench.noted","payload":{{"name":"a.mov"}}}}'.encode()
        one.sendall(POST.format(n=len(body), fields=self._fields).encode() + body)
        self._busy[one] = number

    def _answer(self, one: socket.socket) -> None:
        answer = one.recv(65536)
        if not answer.startswith(b"HTTP/1.1 201 "):
            raise SystemExit(f"a task was refused: {answer!r}")
        del self._busy[one]
        self._free.append(one)
        self._answered += 1

    def _listen(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(1 << 20)
        now = time.time()
        if not data:
            raise SystemExit("the socket was closed")
        self._frames += data
        end = 0
        for found in self._created.finditer(self._frames):
            self.told.setdefault(int(found[1]), now)
            end = found.end()
        # What is left may be the beginning of one.
        self._frames = self._frames[max(end, len(self._frames) - 4096) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("turn", type=int)
    parser.add_argument("--token", required=True)
    parser.add_argument("--socket", action="store_true")
    asked = parser.parse_args()
    chance = random.Random(asked.turn)
    at, gaps = 0.0, []
    while at < asked.seconds:
        at += chance.expovariate(asked.rate)
        gaps.append(at)
    begin = time.time() + 0.3
    arrivals = Arrivals(asked.port, asked.token, asked.turn, [begin + gap for gap in gaps], asked.socket)
    arrivals.run()
    told = [arrivals.told.get(number) for number in range(len(gaps))]
    print(json.dumps({"times": [begin + gap for gap in gaps], "told": told}))


if __name__ == "__main__":
    main()
