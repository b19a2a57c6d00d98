"""Servers in processes of their own, what they cost, and load from another process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.report import Sample

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number


@dataclass
class Server:
    """One server.

    Args:
        name: as tables show it.
        command: `{port}` in it stands for its port.
        environment: besides this process's own.
        headers: of each request.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> IO[bytes]:
        """Start it, and return what it writes."""
        command = [word.format(port=self.port) for word in self.command]
        log = tempfile.TemporaryFile()  # noqa: SIM115 - the process has it
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        return log

    def start(self, path: str = "/tasks") -> None:
        """Start it, and wait until it answers."""
        self._start(lambda: self.ask("GET", path))

    def start_silent(self) -> None:
        """Start what answers no requests of HTTP, and wait until it accepts connections."""
        self._start(lambda: socket.create_connection(("127.0.0.1", self.port)).close())

    def _start(self, look: Callable[[], object]) -> None:
        log = self.launch()
        until = time.monotonic() + 60
        while True:
            try:
                look()
                return
            except urllib.error.HTTPError:
                raise
            except OSError:
                if not self.runs or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{self.name} did not start:\n{log.read().decode()}") from None
                time.sleep(0.05)

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it has ended by an error."""
        return self.process is not None and bool(self.process.poll())

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make a request, and return the body of its answer."""
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
            return found

    def stop(self) -> None:
        """End it, and all that it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used, with all that it has started."""
        assert self.process is not None
        return sum(_cpu_of(pid) for pid in _family(self.process.pid))

    def memory(self) -> int:
        """Return the bytes of it in memory that it shares with nobody, and its part of what it does."""
        assert self.process is not None
        return sum(pss(pid) for pid in _family(self.process.pid))


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes (proc(5), `smaps_rollup`)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _cpu_of(pid: int) -> float:
    """Return the seconds that a process has used, and those of its children that have ended (proc(5), `stat`)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        # It has ended since it was listed: its parent has its seconds.
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


# Prints what wrk's own report has, in a form that is easy to read (wrk, SCRIPTING).
_DONE = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def wrk(server: Server, path: str, *, connections: int, seconds: float, script: str = "") -> Sample:
    """Ask for a path as fast as the answers come.

    Args:
        script: in Lua, which may say what is asked for.

    Raises:
        SystemExit: an answer was none, or an error.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in server.headers.items())
        file.write(headers + script + _DONE)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", file.name, server.url + path]
        before = server.cpu()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = server.cpu() - before
    found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    number, microseconds, p50, p99, errors = map(int, found.groups())
    if errors or not number:
        raise SystemExit(f"{server.name}: {errors} of {number} requests for {path} failed")
    return Sample(number / microseconds * 1e6, used / number * 1e6, p50 / 1000, p99 / 1000)


def loaded(server: Server, command: Sequence[str], failed: str) -> tuple[Any, float]:
    """Run a program that puts a load on a server; return what it tells in JSON, and the processor seconds used.

    It says that it is ready, begins when it is told to, and ends when nothing more is said.

    Raises:
        SystemExit: it told nothing; `failed` says what of.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{server.name}: the load could not begin")
        before = server.cpu()
        print(file=process.stdin, flush=True)
        told = process.stdout.readline()
        used = server.cpu() - before
        if not told:
            raise SystemExit(f"{server.name}: {failed}")
    finally:
        process.stdin.close()
        process.wait()
    return json.loads(told), used


def token_of(url: str) -> str:
    """Make a token of a taskd; this migrates its database."""
    words = ["-m", "taskd", "token", "create", "--user", "ann", "--database-url", url]
    return subprocess.run(python(*words), check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def postgres(**settings: str) -> Iterator[Any]:
    """Run a PostgreSQL that keeps what it is told, whatever happens."""
    from tests.clusters import Cluster

    safe = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}
    cluster = Cluster(safe | settings)
    try:
        cluster.start_now()
        yield cluster
    finally:
        cluster.remove()


def tell(words: str) -> None:
    """Say how far it is."""
    print(words, file=sys.stderr, flush=True)


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    from tests.clusters import _binaries

    return str(_binaries() / name)


def python(*words: str) -> list[str]:
    """Return the command of a Python program."""
    return [sys.executable, *words]
