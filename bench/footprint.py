"""What taskd takes when nobody asks anything of it: memory, processor, statements, and the time of a start.

    python -m bench.against footprint [--rounds 5]

`taskd serve` has all its parts: role all, gRPC, sample handlers, tokens, on a migrated PostgreSQL. Its memory is set
against a process that imports the core dependencies and starts their servers (`bench/peers/footprint_core.py`), on the
same event loop and with as many connections to the database; both are alone when they are looked at, as nothing but
what a whole machine shares is then shared. A WebSocket's memory is what the server grows by for each of many that
are open and silent. Processor time and statements are those of a server that nobody asks anything; PostgreSQL counts
the statements (`pg_stat_statements`, which counts each BEGIN and COMMIT as one too).

A start goes from `exec` to the first answer of 200 at `/readyz`, with gRPC and without, against an interpreter that
only imports the core dependencies; modules are compiled.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from bench.against import Extent
from bench.crowd import Crowd
from bench.report import TASKD, Goal, Row, Sample
from bench.servers import Server, free_port, postgres, python, tell, token_of

CORE = "core dependencies"
PACKAGES = ("asyncpg", "websockets", "grpcio", "protobuf", "grpcio-health-checking", "grpcio-reflection", "uvloop")
IMPORTS = "import asyncpg, websockets, grpc, google.protobuf, grpc_health.v1.health, grpc_reflection.v1alpha.reflection"

# As installed: modules are compiled once, not at each start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

SOCKETS = 5000
SETTLE, IDLE = 5.0, 20.0
"""Seconds after which a server that has started does only what it always does; and for which that is looked at."""

STATEMENTS = "SELECT sum(calls)::bigint FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'"
BUSIEST = """
SELECT calls, query FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' ORDER BY calls DESC LIMIT 12
"""


class Statements:
    """What PostgreSQL counts, over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, query: str) -> list[asyncpg.Record]:
        """Return the rows of a question."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self._url)
            try:
                return await connection.fetch(query)
            finally:
                await connection.close()

        return asyncio.run(run())

    def begin(self) -> None:
        """Count from now on."""
        self.ask("SELECT pg_stat_statements_reset()")

    def count(self) -> int:
        """Return how many there were."""
        return self.ask(STATEMENTS)[0][0] or 0

    def busiest(self) -> str:
        """Return which there were most of."""
        return "\n".join(f"{row['calls']:6} {' '.join(row['query'].split())[:110]}" for row in self.ask(BUSIEST))

    def connections(self) -> int:
        """Return how many connections others have."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return int(self.ask(f"SELECT count(*) FROM pg_stat_activity WHERE {others}")[0][0])


def serve(url: str, *flags: str, token: str = "") -> Server:
    """Return a taskd with all parts, not started."""
    words = ["-m", "taskd", "serve", "--http", "127.0.0.1:{port}", "--database-url", url, "--log-level", "warning"]
    words += ["--ws-connections-per-user", "10000", "--handlers", "taskd.worker.samples", *flags]
    if "--grpc" not in flags:
        words += ["--grpc", f"127.0.0.1:{free_port()}"]
    return Server(TASKD, python(*words), headers={"Authorization": f"Bearer {token}"} if token else {})


@contextmanager
def started(server: Server, path: str) -> Iterator[int]:
    """Run a server; its process is given."""
    try:
        server.start(path)
        assert server.process is not None
        yield server.process.pid
    finally:
        server.stop()


def loop_of(pid: int) -> str:
    """Return which event loop a process has."""
    return "uvloop" if "/uvloop/" in Path(f"/proc/{pid}/maps").read_text() else "asyncio"


def nanoseconds(pid: int) -> int:
    """Return the processor time of all threads of a process (Linux, Documentation/scheduler/sched-stats)."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def memory(server: Server, sockets: int) -> float:
    """Return the bytes of memory that a server grows by for each of so many silent WebSockets."""
    head = f"GET /ws?client=c%d HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
    head += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in server.headers.items()) + "\r\n"
    before = server.memory()
    crowd = Crowd(server.port)
    try:
        crowd.join(sockets, lambda n: (head % n).encode())
        crowd.watch(60, lambda: crowd.answers.get(b"HTTP/1.1 101 Switching Protocols", 0) == sockets)
        if len(crowd) < sockets or set(crowd.answers) != {b"HTTP/1.1 101 Switching Protocols"}:
            raise SystemExit(f"{sockets - len(crowd)} of {sockets} sockets were refused: {crowd.answers}")
        return (server.memory() - before) / sockets
    finally:
        crowd.leave()


def until_ready(server: Server) -> float:
    """Return the seconds from a server's start to its first answer that it is ready."""
    command = [word.format(port=server.port) for word in server.command]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        while not ready(server.port):
            if process.poll() is not None:
                raise SystemExit(f"{server.name} did not start: {command}")
            time.sleep(0.002)
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> bool:
    """Return whether the server answers that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def interpreter(code: str) -> float:
    """Return the seconds that a Python program takes."""
    begun = time.perf_counter()
    subprocess.run(python("-c", code), check=True, env=ENVIRONMENT)
    return time.perf_counter() - begun


def rows() -> dict[str, Row]:
    """Return what is measured."""
    return {
        "memory": Row("Memory of an idle server", "MiB", (Goal(1.25, CORE, at_most=True),), (CORE,), 1),
        "socket": Row("Memory of an idle WebSocket", "KiB", (Goal(8, at_most=True),), (), 1),
        "processor": Row("Processor time of an idle server", "% of a core", (Goal(0.5, at_most=True),), (), 2),
        "statements": Row("Statements of an idle server", "statements/s", (Goal(2, at_most=True),), (), 2),
        "start": Row("Start, from exec to ready", "ms", (Goal(1.5, CORE, at_most=True),), (CORE,)),
    }


def at_rest(found: dict[str, Row], url: str, token: str, *, mini: bool) -> tuple[int, str]:
    """Look at an idle server; return how many connections it keeps to the database, and which event loop it has."""
    sockets, settle, idle = (50, 0.5, 1.0) if mini else (SOCKETS, SETTLE, IDLE)
    counted = Statements(url)
    server = serve(url, token=token)
    with started(server, "/readyz") as pid:
        time.sleep(settle)
        counted.begin()
        used, begun = nanoseconds(pid), time.perf_counter()
        time.sleep(idle)
        used, seconds = nanoseconds(pid) - used, time.perf_counter() - begun
        found["statements"].add(TASKD, Sample(counted.count() / seconds))
        found["processor"].add(TASKD, Sample(used / seconds / 1e7))
        connections = counted.connections()
        found["memory"].add(TASKD, Sample(server.memory() / 2**20))
        tell(f"of {counted.count()} statements in {seconds:.0f} s:\n{counted.busiest()}")
        found["socket"].add(TASKD, Sample(memory(server, sockets) / 1024))
        return connections, loop_of(pid)


def core(url: str, connections: int, loop: str) -> float:
    """Return the bytes of memory of a process with the core dependencies' servers."""
    words = ("-m", "bench.peers.footprint_core", "{port}", str(free_port()), str(connections), loop)
    server = Server(CORE, python(*words), {"DATABASE_URL": url})
    with started(server, "/"):
        time.sleep(0.5)
        return server.memory()


def measure(extent: Extent) -> tuple[str, list[Row]]:
    """Look at an idle server, and start it, by turns with the core dependencies."""
    found = rows()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections, loop = 0, ""
    with postgres(shared_preload_libraries="pg_stat_statements") as cluster:
        url = cluster.url
        Statements(url).ask("CREATE EXTENSION pg_stat_statements")
        token = token_of(url)
        until_ready(serve(url))
        for number in range(extent.rounds):
            connections, loop = at_rest(found, url, token, mini=extent.mini)
            found["memory"].add(CORE, Sample(core(url, connections, loop) / 2**20))
            start = found["start"]
            start.add(TASKD, Sample(until_ready(serve(url)) * 1000))
            start.add("taskd without gRPC", Sample(until_ready(serve(url, "--grpc", "off")) * 1000))
            start.add(CORE, Sample(interpreter(IMPORTS) * 1000))
            last = (f"{row.name}: {row.samples[TASKD][-1].value:.2f} {row.unit}" for row in found.values())
            tell(f"{number + 1}/{extent.rounds} {', '.join(last)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    words = f"{extent.rounds} rounds; {connections} connections to the database; event loop: {loop}."
    return words, list(found.values())
