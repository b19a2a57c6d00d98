"""What the cache costs and spares.

    python -m bench.cache                 what a hit, a put and an end cost, and how they grow
    python -m bench.cache DATABASE_URL    and requests per second over HTTP, cached and not (wants `wrk`), and how soon
                                          another process gives a change

The first part is processor time of one call, so that what else runs counts as little as may be. The second starts
`taskd serve` on a migrated database with a task and a list of 50, and asks for each with 32 connections that are kept;
then two of them, and changes at one what the other has cached, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

from bench.footprint import ENVIRONMENT, ready
from taskd.cache.memory import MemoryCache
from taskd.cache.port import Key
from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.model import Status, User
from taskd.runtime.supervisor import Supervisor
from taskd.service.cached import CachedReads
from taskd.service.ports import View
from taskd.service.tasks import TaskService
from taskd.service.views import view_size
from tests.ws.serving import AT, make_task

CALLS = 20_000
ANN = User("ann")
VIEW = View(b"x" * 700, "1", "ann")


def cache_of(entries: int) -> MemoryCache[View]:
    """Return a cache in memory with room for so many entries."""
    return MemoryCache(Supervisor(), ttl=3600, entries=entries, size=2**40, size_of=view_size)


async def filled(lists: int) -> tuple[MemoryCache[View], CachedReads]:
    """Return a cache that holds a task, and so many lists of one owner."""
    cache = cache_of(lists + 10)
    for key in [Key("task", str(UUID(int=1))), *(Key("list", "ann\0new", str(n)) for n in range(lists))]:
        ticket = (await cache.get(key)).ticket
        assert ticket is not None
        cache.put(key, ticket, VIEW)
    store: TaskService = None  # type: ignore[assignment] - nothing is loaded
    return cache, CachedReads(store, cache)


async def micros() -> list[tuple[str, float]]:
    """Return what is done often, and its microseconds."""
    found: list[tuple[str, float]] = []
    cache, reads = await filled(10)
    key = Key("task", str(UUID(int=1)))

    def spent(name: str, begun: float) -> None:
        found.append((name, (time.process_time() - begun) / CALLS * 1e6))

    begun = time.process_time()
    for _ in range(CALLS):
        await cache.get(key)
    spent("MemoryCache.get, a hit", begun)
    begun = time.process_time()
    for _ in range(CALLS):
        await reads.task(ANN, UUID(int=1))
    spent("CachedReads.task, a hit", begun)
    keys = [Key("task", str(uuid4())) for _ in range(CALLS)]
    big = cache_of(CALLS)
    tickets = [(await big.get(key)).ticket for key in keys]
    begun = time.process_time()
    for key, ticket in zip(keys, tickets, strict=True):
        assert ticket is not None
        big.put(key, ticket, VIEW)
    spent("MemoryCache.put", begun)
    for lists in (10, 1_000, 100_000):
        _, reads = await filled(lists)
        events = [Event(EventKey(1, n), EventType.STARTED, make_task(status=Status.RUNNING), AT, Status.NEW)
                  for n in range(CALLS)]  # fmt: skip
        begun = time.process_time()
        for event in events:
            reads.observe([event])
        spent(f"CachedReads.observe, an event, {lists} lists cached", begun)
    return found


@contextmanager
def serving(url: str, cache: str, port: int) -> Iterator[http.client.HTTPConnection]:
    """Run `taskd serve`."""
    command = [sys.executable, "-m", "taskd", "serve", "--database-url", url, "--auth", "none", "--cache", cache]
    command += ["--grpc", "off", "--http", f"127.0.0.1:{port}", "--role", "api", "--log-level", "warning"]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    try:
        while not ready(port):
            time.sleep(0.01)
        yield http.client.HTTPConnection("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait()


def created(client: http.client.HTTPConnection) -> str:
    """Create fifty tasks, and return the path of one."""
    tasks = [{"title": f"task {n}", "kind": "nobody", "description": "some words " * 20} for n in range(50)]
    client.request("POST", "/tasks/batch", json.dumps({"tasks": tasks}), {"Content-Type": "application/json"})
    return f"/tasks/{json.loads(client.getresponse().read())['tasks'][0]['id']}"


def rate(port: int, path: str, seconds: int) -> float:
    """Return requests per second, as wrk counts them."""
    command = ["wrk", "-t", "1", "-c", "32", "-d", str(seconds), f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in told, told
    found = re.search(r"Requests/sec: +([0-9.]+)", told)
    assert found is not None, told
    return float(found[1])


def answered(client: http.client.HTTPConnection, method: str, path: str, title: str | None = None) -> str:
    """Return the title of a task, as the answer to one call has it."""
    body = None if title is None else json.dumps({"title": title})
    client.request(method, path, body, {"Content-Type": "application/json"})
    return str(json.loads(client.getresponse().read())["title"])


def delays(url: str, cache: str, port: int, changes: int = 300) -> list[float]:
    """Return the milliseconds from a change's answer until another process, which had the task cached, gives it."""
    found = []
    with serving(url, cache, port) as one, serving(url, cache, port + 1) as two:
        path = created(one)
        for n in range(changes):
            answered(two, "GET", path)
            answered(one, "PATCH", path, f"title {n}")
            begun = time.perf_counter()
            while answered(two, "GET", path) != f"title {n}":
                pass
            found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--port", type=int, default=8498)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--caches", default="memory,off", help="values of TASKD_CACHE, with commas between")
    asked = parser.parse_args()
    for name, microseconds in asyncio.run(micros()):
        print(f"{microseconds:8.2f} µs  {name}")
    if asked.url is None:
        return
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(asked.rounds):
        for cache in asked.caches.split(","):
            with serving(asked.url, cache, asked.port) as client:
                for name, path in (("task", created(client)), ("list of 50", "/tasks?status=new")):
                    rates.setdefault((name, cache), []).append(rate(asked.port, path, asked.seconds))
    for (name, cache), found in rates.items():
        print(f"{statistics.median(found):8.0f} requests/s  {name}, TASKD_CACHE={cache}  {sorted(map(round, found))}")
    for cache in asked.caches.split(","):
        late = delays(asked.url, cache, asked.port)
        at = {share: late[int(share * len(late)) - 1] for share in (0.5, 0.99, 1.0)}
        print(f"another process, TASKD_CACHE={cache}: " + ", ".join(f"p{s * 100:g} {at[s]:.1f} ms" for s in at))


if __name__ == "__main__":
    main()
