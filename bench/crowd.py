"""Many clients that mean no good, on plain sockets, and one that does: for `bench.hostile`."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.01
"""Seconds between two requests of the good client."""


class Crowd:
    """Sockets that are connected, written to and watched for their end; reading is not what they are for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self.ended: list[float] = []
        """When each that has ended did, by `time.monotonic`."""
        self.answers: dict[bytes, int] = {}
        """How many got which first line, of those that were read."""

    def __len__(self) -> int:
        return len(self._open)

    def join(self, number: int, hello: Callable[[int], bytes] = lambda n: b"", *, reads: bool = True) -> None:
        """Connect more, and let each say something; `reads` False: with the smallest buffer, and reading nothing."""
        for n in range(number):
            one = socket.socket()
            if not reads:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.connect(("127.0.0.1", self._port))
            one.setblocking(False)
            self._open[one.fileno()] = one
            self._poll.register(one, select.EPOLLRDHUP | (select.EPOLLIN if reads else 0))
            self.say([one], hello(n))
            if n % 50 == 0:
                self.look()

    @property
    def all(self) -> list[socket.socket]:
        """Those that are still connected."""
        return list(self._open.values())

    def say(self, some: Iterable[socket.socket], data: bytes) -> None:
        """Send as much as goes."""
        if data:
            for one in some:
                with contextlib.suppress(OSError):
                    one.send(data)

    def look(self, wait: float = 0) -> None:
        """Take note of ends, for some seconds at the most."""
        for number, what in self._poll.poll(wait):
            one = self._open[number]
            data = b""
            if not what & (select.EPOLLHUP | select.EPOLLERR):
                with contextlib.suppress(OSError):
                    data = one.recv(65536)
            if data:
                line = data.split(b"\r\n", 1)[0]
                if line.startswith(b"HTTP/1.1 "):
                    self.answers[line] = self.answers.get(line, 0) + 1
            elif what & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP | select.EPOLLIN):
                self._forget(number)

    def watch(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Look for some seconds, or until something is so, or all have gone."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end and not (until and until()):
            self.look(0.1)

    def leave(self) -> None:
        """Go, all at once."""
        for number in tuple(self._open):
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._open.pop(number).close()
        self.ended.append(time.monotonic())


@dataclass
class Meter:
    """Looks at a process four times a second."""

    pid: int
    rss: int = 0
    descriptors: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> tuple[int, int]:
        """Return the resident bytes, and the descriptors that are open."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        rss = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        return rss, len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def __enter__(self) -> Meter:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            rss, descriptors = self.now()
            self.rss, self.descriptors = max(self.rss, rss), max(self.descriptors, descriptors)


def behave(port: int) -> None:
    """Ask something every `EVERY` seconds until the input ends, and print how long the answers took.

    Four in a row on one connection, then on a new one: by turns for a task, and for the first page of a list.
    """
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    times: list[float] = []
    failed: dict[str, int] = {}
    number = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not ended.wait(EVERY):
        number += 1
        if number % 5 == 0:
            connection.close()
        begun = time.perf_counter()
        try:
            connection.request("GET", "/tasks?limit=5" if number % 2 else "/healthz", headers={"X-Taskd-User": "good"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed[str(answer.status)] = failed.get(str(answer.status), 0) + 1
        except OSError as error:
            failed[type(error).__name__] = failed.get(type(error).__name__, 0) + 1
            connection.close()
        except http.client.HTTPException as error:
            failed[type(error).__name__] = failed.get(type(error).__name__, 0) + 1
            connection.close()
        times.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    print(json.dumps({"asked": len(times), "p50": cuts[49], "p99": cuts[98], "most": max(times), "failed": failed}))


if __name__ == "__main__":
    behave(int(sys.argv[1]))
