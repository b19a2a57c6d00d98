"""How others fare while clients are slow, silent, endless or many.

    python -m bench.hostile [SCENARIO ...]

Starts a PostgreSQL in a temporary directory and, for each scenario, `taskd serve` in a process of its own; then a
client that behaves (`bench.crowd`) in another, and the others in this one. Prints for each: how long the answers of
the one that behaves took, the most memory and descriptors of the server, how many are left open afterwards, and how
long after their beginning the first and the last of the others were cut off. The promises: p99 of 100 ms, 300 MiB, as
many descriptors as before. 10 000 sockets want a limit of 20 000 descriptors here and there (`ulimit -n`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Thread

from bench.crowd import Crowd, Meter

MIB = 1024 * 1024
START = b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Taskd-User: bad\r\n"
SOCKET = (
    b"GET /ws?user=bad&client=c%d HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass
class Bench:
    """The server, and who comes."""

    port: int
    pid: int
    crowd: Crowd
    note: str = ""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        """Ask something as a client that behaves, and return the status."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def fill(self, number: int, size: int, owner: str = "bad") -> None:
        """Make tasks with a payload of `size` bytes."""
        task = json.dumps({"kind": "none", "title": "t", "payload": {"x": "x" * size}}).encode()
        for _ in range(number):
            assert self.ask("POST", "/tasks", task, **{"X-Taskd-User": owner}) == 201


def idle(bench: Bench) -> None:
    """10 000 that connect and say nothing."""
    bench.crowd.join(10_000)
    bench.crowd.watch(90)


def dripping(bench: Bench) -> None:
    """5 000 that send a byte each second, of a head or of a body."""
    bench.crowd.join(5_000, lambda n: START + (b"Content-Length: 1000\r\n\r\n" if n % 2 else b"X: "))
    end = time.monotonic() + 60
    while len(bench.crowd) and time.monotonic() < end:
        begun = time.monotonic()
        bench.crowd.say(bench.crowd.all, b"x")
        bench.crowd.watch(max(0, 1 - (time.monotonic() - begun)))


def unread(bench: Bench) -> None:
    """2 000 that ask for 1.6 MiB again and again and read nothing."""
    bench.fill(200, 8 * 1024)
    ask = b"GET /tasks?limit=200 HTTP/1.1\r\nHost: localhost\r\nX-Taskd-User: bad\r\n\r\n"
    bench.crowd.join(2_000, lambda n: ask * 20, reads=False)
    bench.crowd.watch(90)


def endless(bench: Bench) -> None:
    """1 000 heads and 1 000 bodies that never end, as fast as they go; 500 more bodies that stop short of 1 MiB."""
    body = START + b"Content-Length: %d\r\n\r\n" % MIB
    chunked = START + b"Transfer-Encoding: chunked\r\n\r\n"
    kinds = [START + b"X: ", chunked, START + b"Y: ", chunked, body]
    bench.crowd.join(2_500, lambda n: kinds[n % 5])
    groups: list[list[object]] = [[], [], [], [], []]
    for n, one in enumerate(bench.crowd.all):
        groups[n % 5].append(one)
    piece = b"x" * 65_000
    for _ in range(200):
        for number, group in enumerate(groups):
            alive = [one for one in group if one.fileno() >= 0]  # type: ignore[attr-defined]
            data = b"%x\r\n%b\r\n" % (len(piece), piece) if number in (1, 3) else piece
            bench.crowd.say(alive, data)  # type: ignore[arg-type]
            bench.crowd.look()
        if not len(bench.crowd):
            break
    bench.crowd.watch(60)


def pipelined(bench: Bench) -> None:
    """100 000 requests on one connection, sent without waiting, and their answers read."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    bench.crowd.join(1)
    (one,) = bench.crowd.all
    one.setblocking(True)
    begun = time.monotonic()
    sender = Thread(target=lambda: one.sendall(ask * 100_000))
    sender.start()
    answers, left = 0, b""
    while answers < 100_000:
        data = left + one.recv(1 << 20)
        answers += data.count(b"HTTP/1.1 200 ")
        left = data[-12:] if not data.endswith(b"HTTP/1.1 200 ") else b""
    sender.join()
    bench.note = f"{answers} answers in {time.monotonic() - begun:.1f} s"
    bench.crowd.leave()


def bomb(bench: Bench) -> None:
    """500 bodies of 1 MiB that would be a GiB if they were decoded."""
    body = gzip.compress(bytes(1024 * MIB), 6)[: MIB - 1024]
    statuses = {bench.ask("POST", "/tasks", body, **{"Content-Encoding": "gzip"}) for _ in range(500)}
    bench.note = f"a body of {len(body)} bytes is answered with {statuses}"


def sockets(bench: Bench) -> None:
    """2 000 WebSockets that never read, and events of 128 KiB for all of them."""
    bench.crowd.join(2_000, lambda n: SOCKET % n, reads=False)
    bench.fill(40, 128 * 1024)
    bench.crowd.watch(60)


def descriptors(bench: Bench) -> None:
    """1 000 connections where 256 descriptors are allowed."""
    bench.crowd.join(1_000)
    bench.crowd.watch(20)


SCENARIOS: dict[str, Callable[[Bench], None]] = {
    one.__name__: one for one in (idle, dripping, unread, endless, pipelined, bomb, sockets, descriptors)
}


@contextmanager
def serving(url: str, limit: int | None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a server."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    command = [sys.executable, "-m", "taskd", "serve", "--database-url", url, "--auth", "none", "--grpc", "off"]
    command += ["--http", "127.0.0.1:0", "--log-level", "warning", "--ws-connections-per-user", "10000"]
    log = "--log-level=info"
    process = subprocess.Popen([*command, log], stderr=subprocess.PIPE, preexec_fn=limited)
    assert process.stderr is not None
    while (found := re.search(rb"http://127\.0\.0\.1:(\d+)", line := process.stderr.readline())) is None:
        assert line, "the server did not start"
    lines: list[bytes] = []
    Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True).start()
    try:
        yield process, int(found[1])
    finally:
        process.terminate()
        process.wait()
        loud = [line for line in lines if b"ERROR" in line or b"WARN" in line or b"Traceback" in line]
        print(f"    log: {len(lines)} lines, {len(loud)} of them warnings or errors", *loud[:3], sep="\n    ")


def lateness(port: int) -> str:
    """Return the bounds below which 99 %, and all, of the looks found the server's event loop late."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    counts = [(bound, int(n)) for bound, n in re.findall(r'lag_seconds_bucket{le="([^"]+)"} (\d+)', text)]
    return ", ".join(
        f"{share:.0%} of {counts[-1][1]} looks up to {next(b for b, n in counts if n >= share * counts[-1][1])} s"
        for share in (0.99, 1)
    )


def run(name: str, url: str) -> None:
    """Run one scenario, and print its figures."""
    with serving(url, 256 if name == "descriptors" else None) as (process, port):
        bench = Bench(port, process.pid, Crowd(port))
        meter = Meter(process.pid)
        good = subprocess.Popen(
            [sys.executable, "-m", "bench.crowd", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        # What the others do takes time that is not the server's: elsewhere they would have machines of their own.
        os.nice(10)
        time.sleep(2)
        before = meter.now()
        with meter:
            begun = time.monotonic()
            SCENARIOS[name](bench)
            took = time.monotonic() - begun
        told = json.loads(good.communicate()[0])
        left = len(bench.crowd)
        ended = [at - begun for at in bench.crowd.ended]
        bench.crowd.leave()
        time.sleep(2)
        after = meter.now()
        print(f"{name}: {SCENARIOS[name].__doc__}")
        print(f"    others: {told['asked']} asked, p50 {told['p50'] * 1e3:.1f} ms, p99 {told['p99'] * 1e3:.1f} ms, "
              f"most {told['most'] * 1e3:.0f} ms, failed {told['failed']}")  # fmt: skip
        memory = [size / MIB for size in (before[0], meter.rss, after[0])]
        print("    memory: {:.0f} MiB before, {:.0f} at most, {:.0f} after".format(*memory))
        print(f"    descriptors: {before[1]} before, {meter.descriptors} at most, {after[1]} after")
        if ended:
            print(f"    cut off: {len(ended)}, from {min(ended):.1f} to {max(ended):.1f} s; left: {left}")
        print(f"    the event loop was late: {lateness(port)}")
        print(f"    took {took:.1f} s; answers {bench.crowd.answers} {bench.note}", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--url", help="of a database that is there already")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.url:
        for name in asked.scenarios:
            run(name, asked.url)
        return
    from tests.clusters import Cluster

    cluster = Cluster()
    try:
        cluster.start_now()
        for name in asked.scenarios:
            # In a process of its own, since none can take back that it is nice.
            subprocess.run([sys.executable, "-m", "bench.hostile", name, "--url", cluster.url], check=True)
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
