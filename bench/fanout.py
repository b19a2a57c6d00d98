"""One event to 5 000 sockets, and twenty, beside `broadcast` of websockets and raw frames on raw transports.

    python -m bench.against fanout [--rounds 5] [--seconds 4] [--size 5000]

`--size` is the number of sockets. With taskd an event is set off by a POST of a task, which is committed, read from the
log and then sent; with the others by a message of one of the sockets, which is sent at once. All frames are as large as
taskd's. The sockets are in another process, which counts. What is counted is frames: events times sockets, by the time
from before an event is set off until every socket has it. In the first row the next event is set off when that is so;
in the second, the next twenty.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.against import Extent
from bench.report import TASKD, Goal, Row, Sample
from bench.servers import Server, loaded, postgres, python, tell, token_of

SOCKETS, AT_ONCE = 5000, 20
BROADCAST, RAW = "websockets, `broadcast`", "raw frames, raw transports"
PACKAGES = ("websockets", "uvloop", "asyncpg")
FRAME_HEAD = 4
"""Bytes before a text of 126 to 65 535 bytes (RFC 6455 5.2)."""


@dataclass(frozen=True)
class Turn:
    """One server's events."""

    sample: Sample
    size: int


def turn(server: Server, sockets: int, seconds: float, at_once: int = 1, token: str = "") -> Turn:
    """Connect the sockets, send events for a while, and disconnect."""
    command = python("-m", "bench.listeners", str(server.port), str(sockets), str(seconds))
    command += ["--at-once", str(at_once), "--token", token]
    found, used = loaded(server, command, "not every socket was told of every event")
    frames = found["events"] * sockets
    return Turn(Sample(frames / found["seconds"], used / frames * 1e6), found["size"])


@contextmanager
def running(sockets: int) -> Iterator[tuple[Server, str]]:
    """Start taskd; yield it with a token."""
    with postgres() as cluster:
        url = cluster.url
        token = token_of(url)
        serve = ["-m", "taskd", "serve", "--role", "api", "--http", "127.0.0.1:{port}", "--log-level", "warning"]
        serve += ["--grpc", "off", "--database-url", url, "--ws-connections-per-user", str(sockets)]
        server = Server(TASKD, python(*serve), headers={"Authorization": f"Bearer {token}"})
        try:
            server.start("/readyz")
            yield server, token
        finally:
            server.stop()


@contextmanager
def peer(name: str, module: str, size: int) -> Iterator[Server]:
    """Start another server, whose texts have so many bytes."""
    server = Server(name, python("-m", f"bench.peers.{module}", "{port}", str(size)))
    try:
        server.start_silent()
        yield server
    finally:
        server.stop()


def measure(extent: Extent) -> tuple[str, list[Row]]:
    """Let each server send its events, by turns."""
    sockets = extent.size or (50 if extent.mini else SOCKETS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = {
        at_once: Row(f"{what} to {sockets} sockets", "frames/s", (Goal(3, BROADCAST), Goal(0.6, RAW)), (RAW,))
        for at_once, what in ((1, "One event"), (AT_ONCE, f"{AT_ONCE} events at once"))
    }
    with running(sockets) as (taskd, token):
        size = turn(taskd, sockets, 0, token=token).size
        with (
            peer(BROADCAST, "fanout_websockets", size - FRAME_HEAD) as broadcast,
            peer(RAW, "fanout_raw", size - FRAME_HEAD) as raw,
        ):
            for number in range(extent.rounds):
                for at_once, row in rows.items():
                    for server, shown in ((taskd, token), (broadcast, ""), (raw, "")):
                        found = turn(server, sockets, extent.seconds, at_once, shown)
                        if found.size != size:
                            raise SystemExit(f"{server.name} sends frames of {found.size} bytes, and not of {size}")
                        row.add(server.name, found.sample)
                        tell(f"{number + 1}/{extent.rounds} {row.name}: {server.name} {found.sample.value:.0f}/s")
    words = f"{extent.rounds} rounds of {extent.seconds:g} s, {sockets} sockets, frames of {size} bytes."
    return words, list(rows.values())
