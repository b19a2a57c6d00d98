"""gRPC GetTask of a cached task, beside a bare servicer of grpc.aio that answers with a constant.

    python -m bench.against grpc [--rounds 5] [--seconds 4]

Both answer with a message of the same size; the load, from another process, keeps so many calls open that the server
is never idle. taskd checks a token, keeps a request id and counts meanwhile; it logs no line for each call. The bare
servicer runs on uvloop.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.against import Extent
from bench.report import TASKD, Goal, Row, Sample
from bench.servers import Server, free_port, loaded, postgres, python, tell, token_of

CONNECTIONS, CALLS = 4, 16
"""Connections of the load, and calls that are open on each."""

BARE = "bare servicer"
PACKAGES = ("grpcio", "protobuf", "uvloop", "asyncpg")
PATH = "/taskd.v1.TaskService/GetTask"


def load(server: Server, port: int, message: bytes, seconds: float, token: str = "") -> tuple[Sample, float]:
    """Call for some seconds; return what it was like, and the mean size of an answer."""
    words = [str(port), PATH, message.hex(), str(seconds), str(CONNECTIONS), str(CALLS), "--token", token]
    found, used = loaded(server, python("-m", "bench.callers", *words), "it has stopped to answer")
    calls = found["calls"]
    return Sample(calls / found["seconds"], used / calls * 1e6, found["p50"], found["p99"]), found["bytes"] / calls


@contextmanager
def running() -> Iterator[tuple[Server, int, str, str]]:
    """Start taskd; yield it with its port of gRPC, a token, and the id of a task."""
    with postgres() as cluster:
        url = cluster.url
        token, port = token_of(url), free_port()
        serve = ["-m", "taskd", "serve", "--role", "api", "--http", "127.0.0.1:{port}", "--log-level", "warning"]
        serve += ["--grpc", f"127.0.0.1:{port}", "--database-url", url]
        server = Server(TASKD, python(*serve), headers={"Authorization": f"Bearer {token}"})
        try:
            server.start("/readyz")
            task = {"title": "Compress the video", "kind": "nobody", "payload": {"name": "a.mov", "size": 12}}
            yield server, port, token, json.loads(server.ask("POST", "/tasks", json.dumps(task).encode()))["id"]
        finally:
            server.stop()


def answer_of(port: int, token: str, request: Any) -> bytes:
    """Return taskd's answer, encoded."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = channel.unary_unary(PATH)(
            request.SerializeToString(), metadata=(("authorization", f"Bearer {token}"),), timeout=30
        )
        return answer


def measure(extent: Extent) -> tuple[str, list[Row]]:
    """Call both, by turns."""
    from taskd.v1 import taskd_pb2 as pb

    row = Row("gRPC GetTask, cached", "calls/s", (Goal(0.8, BARE),))
    with running() as (taskd, port, token, task), tempfile.NamedTemporaryFile() as file:
        request = pb.GetTaskRequest(id=task)
        answer = answer_of(port, token, request)
        Path(file.name).write_bytes(answer)
        bare = Server(BARE, python("-m", "bench.peers.grpc_bare", "{port}", file.name))
        try:
            bare.start_silent()
            for number in range(extent.rounds):
                for server, at, shown in ((taskd, port, token), (bare, bare.port, "")):
                    sample, size = load(server, at, request.SerializeToString(), extent.seconds, shown)
                    # Five bytes before each message; calls that had begun before, or have not ended, make it inexact.
                    if not 0.9 < size / (len(answer) + 5) < 1.1:
                        raise SystemExit(f"{server.name} answers with {size:.0f} bytes, and not {len(answer)}")
                    row.add(server.name, sample)
                    tell(f"{number + 1}/{extent.rounds} {row.name}: {server.name} {sample.value:.0f}/s")
        finally:
            bare.stop()
    words = f"{extent.rounds} rounds of {extent.seconds:g} s, {CONNECTIONS} connections with {CALLS} calls each,"
    return f"{words} answers of {len(answer)} bytes.", [row]
