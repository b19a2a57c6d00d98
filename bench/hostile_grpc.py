"""What callers that mean harm cost others, and the server, over gRPC.

    python -m bench.hostile_grpc DATABASE_URL [--seconds 8]

For each way to do harm a server of its own; while it goes on, another process asks for one task again and again.
Printed: the server's memory before, at its most and ten seconds after, the asker's latency, and how often it was
refused.
The figures of a run are in `docs/decisions/0008-hostile-grpc.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub
from tests.rpc.frames import (
    DATA,
    NO_WINDOW,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    Raw,
    begin,
    call,
    connected,
    frame,
)
from tests.running import start

LIST = b"/taskd.v1.TaskService/ListTasks"
WATCH = b"/taskd.v1.TaskService/WatchTasks"
BEGIN = PREFACE + frame(SETTINGS, 0, 0, b"")
ANN = (b"x-taskd-user", b"ann")
ATTACKS: dict[str, Callable[[str], Awaitable[None]]] = {}


def attack(name: str) -> Callable[[Callable[[str], Awaitable[None]]], None]:
    """Make a coroutine one of the attacks; it goes on until it is cancelled."""

    def note(run: Callable[[str], Awaitable[None]]) -> None:
        ATTACKS[name] = run

    return note


async def many(number: int, one: Callable[[], Awaitable[None]]) -> None:
    """Run so many at once, each anew when it has ended."""

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await one()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(again() for _ in range(number)))


async def answer_pings(raw: Raw) -> None:
    """Read, so that the server takes the other side for alive."""
    while True:
        await raw.answering()


@attack("nobody")
async def nobody(address: str) -> None:
    await asyncio.Event().wait()


async def watches(address: str, connections: int, streams: int) -> None:
    async def one() -> None:
        async with connected(address) as raw:
            reading = asyncio.create_task(answer_pings(raw))
            try:
                for n in range(streams):
                    await raw.send(call(WATCH, ANN, stream=2 * n + 1))
                await reading
            finally:
                reading.cancel()

    await many(connections, one)


@attack("10 000 watches, 10 connections")
async def ten(address: str) -> None:
    await watches(address, 10, 1000)


@attack("10 000 streams, 1 connection")
async def single(address: str) -> None:
    await watches(address, 1, 10_000)


@attack("20 connections take none of 200 pages of 4 MiB")
async def untaken(address: str) -> None:
    async def one() -> None:
        async with connected(address, NO_WINDOW) as raw:
            await raw.send(*(call(LIST, ANN, stream=2 * n + 1) for n in range(200)))
            await answer_pings(raw)

    await many(20, one)


@attack("8 connections begin 1000 requests of 4 MiB")
async def unfinished(address: str) -> None:
    async def one() -> None:
        async with connected(address) as raw:
            window, room = 65_535, asyncio.Event()

            async def read() -> None:
                nonlocal window
                try:
                    while True:
                        kind, stream, payload = await raw.answering()
                        if kind == WINDOW and stream == 0:
                            window += int.from_bytes(payload, "big")
                            room.set()
                finally:
                    room.set()

            reading = asyncio.create_task(read())
            try:
                for n in range(1000):
                    await raw.send(begin(LIST, ANN, stream=2 * n + 1))
                    left = b"\0\0\x3f\xff\xff" + bytes(4_000_000)
                    while left:
                        while window < 16_384:
                            room.clear()
                            await room.wait()
                            if reading.done():
                                return
                        piece, left = left[:16_384], left[16_384:]
                        window -= len(piece)
                        await raw.send(frame(DATA, 0, 2 * n + 1, piece))
                await reading
            finally:
                reading.cancel()

    await many(8, one)


def flood(make: Callable[[int], bytes]) -> Callable[[str], Awaitable[None]]:
    """Return an attack of two connections that send without end."""

    async def run(address: str) -> None:
        async def one() -> None:
            async with connected(address) as raw:
                reading = asyncio.create_task(answer_pings(raw))
                try:
                    for n in range(1_000_000):
                        await raw.send(make(n))
                        if reading.done():
                            return
                finally:
                    reading.cancel()

        await many(2, one)

    return run


attack("calls that are reset at once")(
    flood(lambda n: begin(LIST, ANN, stream=2 * n + 1) + frame(RESET, 0, 2 * n + 1, b"\0\0\0\x08"))
)
attack("calls of methods that are no text")(flood(lambda n: call(b"/\xff\xfe", stream=2 * n + 1)))
attack("pings")(flood(lambda n: frame(PING, 0, 0, n.to_bytes(8, "big"))))
attack("settings")(flood(lambda n: frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff")))


@attack("3000 connections say nothing")
async def silent(address: str) -> None:
    async def one() -> None:
        async with connected(address, b"") as raw:
            while await raw.some():
                pass

    await many(3000, one)


async def probe(address: str, seconds: float, task: str) -> dict[str, float]:
    """Ask for a task again and again; return what it was like."""
    taken: list[float] = []
    refused = 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub: TaskServiceStub = TaskServiceStub(channel)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                await stub.GetTask(pb.GetTaskRequest(id=task), metadata=(("x-taskd-user", "ann"),), timeout=10)
            except grpc.RpcError:
                refused += 1
            taken.append(time.monotonic() - begun)
            await asyncio.sleep(0.005)
    taken.sort()
    p50, p99 = (taken[int(len(taken) * part)] * 1000 for part in (0.5, 0.99))
    return {"p50": p50, "p99": p99, "most": taken[-1] * 1000, "calls": len(taken), "refused": refused}


def mib(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 1024**2


async def fill(address: str) -> str:
    """Make a page of 4 MiB; return the id of a task."""
    async with grpc.aio.insecure_channel(address) as channel:
        drafts = [pb.NewTask(title="t", kind="nobody", payload=f'{{"x":"{"y" * 250_000}"}}') for _ in range(4)]
        for _ in range(4):
            made = await TaskServiceStub(channel).BatchCreateTasks(
                pb.BatchCreateTasksRequest(tasks=drafts), metadata=(("x-taskd-user", "ann"),)
            )
        return str(made.tasks[0].id)


async def measure(url: str, name: str, seconds: float) -> None:
    """Run one attack on a server of its own, and print its row."""
    server = await start(url, "--role", "api", "--grpc", "127.0.0.1:0", handlers="")
    assert server.process is not None
    assert server.grpc is not None
    try:
        task = await fill(server.grpc)
        before = most = mib(server.process.pid)
        attacking = asyncio.create_task(ATTACKS[name](server.grpc))  # type: ignore[arg-type]
        await asyncio.sleep(2)
        asker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.hostile_grpc", task, "--probe", server.grpc, "--seconds", str(seconds),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        answer = asyncio.create_task(asker.communicate())
        while not answer.done():
            most = max(most, mib(server.process.pid))
            await asyncio.wait({answer}, timeout=0.1)
        attacking.cancel()
        await asyncio.wait({attacking})
        found = json.loads((await answer)[0])
        await asyncio.sleep(10)
        print(
            f"| {name} | {before} / {most} / {mib(server.process.pid)} | "
            f"{found['p50']:.1f} / {found['p99']:.1f} / {found['most']:.0f} | {found['refused']} of {found['calls']} |",
            flush=True,
        )
    finally:
        await server.kill()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--probe")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    if given.probe:
        print(json.dumps(await probe(given.probe, given.seconds, given.url)))
        return
    print("| | MiB before / most / after | p50 / p99 / most, ms | refused |\n|---|---|---|---|")
    for name in ATTACKS:
        if given.only in name:
            await measure(given.url, name, given.seconds)


if __name__ == "__main__":
    asyncio.run(main())
