"""How long a task waits for its handler, and its event for a socket, while tasks come at a fixed rate.

    python -m bench.against latency [--rounds 5] [--seconds 4]

`taskd serve`, all parts in one process, with a handler that does nothing but tell when it began. Tasks are POSTed one
by one from another process, at the times of a Poisson process that waits for nobody (`bench.arrivals`): what comes late
because the one before was late counts as late. The first second is not counted.

- From claim to handler: from `started_at`, which the database's clock gives in the statement that claims, so that its
  commit is in it, to the handler's first line, by the clock of the same machine.
- From POST to handler, and to the socket: from the time when the task was to be sent, to the handler's first line, or
  to when the `created` event had come at the socket. The tasks are claimed and done meanwhile.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bench.against import Extent
from bench.report import TASKD, Goal, Row, Sample
from bench.servers import Server, free_port, postgres, python, tell, token_of

CLAIM_RATE, SOCKET_RATE = 500, 200
WARM = 1.0
"""Seconds that are not counted."""

PACKAGES = ("asyncpg", "uvloop")


def _at_most(p50: float, p99: float) -> tuple[Goal, Goal]:
    return Goal(p50, field="p50", at_most=True), Goal(p99, field="p99", at_most=True)


@contextmanager
def running() -> Iterator[tuple[Server, str]]:
    """Start taskd; yield it with a token."""
    with postgres() as cluster:
        url = cluster.url
        token = token_of(url)
        serve = ["-m", "taskd", "serve", "--http", "127.0.0.1:{port}", "--log-level", "warning"]
        serve += ["--grpc", f"127.0.0.1:{free_port()}", "--database-url", url, "--handlers", "bench.handlers"]
        server = Server(TASKD, python(*serve), headers={"Authorization": f"Bearer {token}"})
        try:
            server.start("/readyz")
            yield server, token
        finally:
            server.stop()


class Turn:
    """Tasks at a rate for some seconds."""

    def __init__(self, server: Server, token: str, number: int, rate: int, seconds: float, watching: bool) -> None:
        words = [str(server.port), str(rate), str(WARM + seconds), str(number), "--token", token]
        command = python("-m", "bench.arrivals", *words, *(["--socket"] if watching else []))
        before = server.cpu()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found: Any = json.loads(done.stdout)
        self.times: Sequence[float] = found["times"]
        self.told: Sequence[float] = found["told"]
        self.tasks = _done(server, number, len(self.times))
        self._cpu = (server.cpu() - before) / len(self.times) * 1e6
        self._first = sum(at - self.times[0] < WARM for at in self.times)

    def sample(self, begun: Sequence[float], ended: Sequence[float]) -> Sample:
        """Return how long it took from one time to the other, and how many there were in a second."""
        took = [end - begin for begin, end in zip(begun, ended, strict=True)][self._first :]
        cuts = statistics.quantiles(took, n=100)
        over = max(ended) - self.times[self._first]
        return Sample(len(took) / over, self._cpu, cuts[49] * 1000, cuts[98] * 1000)


def _done(server: Server, turn: int, number: int) -> list[tuple[float, float]]:
    """Return when each task of a turn was claimed, and when its handler began; wait until all have ended."""
    until = time.monotonic() + 30
    while True:
        found: dict[int, tuple[float, float]] = {}
        path: str | None = "/tasks?kind=bench.noted&status=done&limit=200"
        while path is not None and len(found) < number:
            page: Any = json.loads(server.ask("GET", path))
            for task in page["tasks"]:
                of, _, n = task["title"].partition("-")
                if int(of) == turn:
                    found[int(n)] = datetime.fromisoformat(task["started_at"]).timestamp(), task["result"]
            older = page["tasks"] and int(page["tasks"][-1]["title"].partition("-")[0]) < turn
            cursor = page["next_cursor"]
            path = f"/tasks?kind=bench.noted&status=done&limit=200&cursor={cursor}" if cursor and not older else None
        if len(found) == number:
            return [found[n] for n in range(number)]
        if time.monotonic() > until:
            raise SystemExit(f"only {len(found)} of {number} tasks were done in time")
        time.sleep(0.2)


def measure(extent: Extent) -> tuple[str, list[Row]]:
    """Let tasks come at one rate, and at the other, by turns."""
    claimed = Row(f"From claim to handler, {CLAIM_RATE} tasks/s", "tasks/s", _at_most(5, 25))
    handled = Row(f"From POST to handler, {CLAIM_RATE} tasks/s", "tasks/s", ())
    told = Row(f"From POST to a socket, {SOCKET_RATE} tasks/s", "tasks/s", _at_most(10, 40))
    with running() as (server, token):
        for number in range(extent.rounds):
            turn = Turn(server, token, 2 * number, CLAIM_RATE, extent.seconds, watching=False)
            starts = [at for at, _ in turn.tasks]
            begun = [at for _, at in turn.tasks]
            claimed.add(TASKD, turn.sample(starts, begun))
            handled.add(TASKD, turn.sample(turn.times, begun))
            turn = Turn(server, token, 2 * number + 1, SOCKET_RATE, extent.seconds, watching=True)
            told.add(TASKD, turn.sample(turn.times, turn.told))
            for row in (claimed, told):
                last = row.samples[TASKD][-1]
                tell(f"{number + 1}/{extent.rounds} {row.name}: p50 {last.p50:.1f} ms, p99 {last.p99:.1f} ms")
    words = f"{extent.rounds} rounds of {extent.seconds:g} s."
    return words, [claimed, handled, told]
