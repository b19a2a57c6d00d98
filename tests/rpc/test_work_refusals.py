"""What a worker may not say to `WorkerService`, and how it is told so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from taskd.rpc.status import error_of
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.working import Stream, working
from tests.running import embedded


@pytest.fixture
async def stream(database_url: str) -> AsyncIterator[Stream]:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server, working(server.app) as found:
        yield found


def faults_of(error: grpc.aio.AioRpcError) -> list[str]:
    found = error_of(error.code(), error.details() or "", error.trailing_metadata() or ())
    return [fault.field for fault in found.faults]  # type: ignore[attr-defined]


HELLO = {"kinds": ["k"], "slots": 1}


@pytest.mark.parametrize(
    ("hello", "fields"),
    [
        ({"kinds": [], "slots": 1}, ["hello.kinds"]),
        ({"kinds": ["k"] * 101, "slots": 1}, ["hello.kinds"]),
        ({"kinds": ["BAD", "k"], "slots": 0}, ["hello.kinds[0]", "hello.slots"]),
        ({"kinds": ["k"], "slots": 1001}, ["hello.slots"]),
        ({**HELLO, "lease": {"seconds": 1}}, ["hello.lease"]),
        ({**HELLO, "lease": {"seconds": 301}}, ["hello.lease"]),
        ({**HELLO, "name": "x" * 201}, ["hello.name"]),
        ({**HELLO, "running": [{"task_id": "x"}]}, ["hello.running[0].task_id"]),
    ],
)
async def test_a_bad_hello_names_its_fields(stream: Stream, hello: dict[str, object], fields: list[str]) -> None:
    await stream.say(hello=pb.Hello(**hello))  # type: ignore[arg-type]
    error = await stream.refused()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert faults_of(error) == fields


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"hello": HELLO}, "hello"),
        ({"results": {"results": [{"attempt": {"task_id": "x"}, "result": "1"}]}}, "results[0].attempt.task_id"),
        ({"results": {"results": [{"attempt": {}}]}}, "results[0].attempt.task_id"),
        ({"progress": {"reports": [{"attempt": {"task_id": "x"}}]}}, "progress[0].attempt.task_id"),
        ({"results": {"results": [{}] * 1001}}, "results"),
        ({"progress": {"reports": [{}] * 1001}}, "progress"),
    ],
)
async def test_a_bad_message_ends_the_stream_and_names_its_field(
    stream: Stream, message: dict[str, object], field: str
) -> None:
    await stream.hello("k")
    await stream.say(**message)
    error = await stream.refused()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in faults_of(error)


async def test_hello_comes_first(stream: Stream) -> None:
    await stream.say(pong=pb.Pong())
    assert faults_of(await stream.refused()) == ["hello"]
