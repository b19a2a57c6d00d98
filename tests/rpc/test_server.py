"""The gRPC server of a taskd: its start and end, its limits, and what hurts it not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from taskd import Taskd
from taskd.errors import StartError
from taskd.rpc import accept
from taskd.rpc.channel import KEEPALIVE, MAX_ANSWER, MAX_REQUEST, open_channel
from taskd.rpc.server import MAX_METADATA, OPTIONS
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import Caller, calling, end_of, refusal_of
from tests.rpc.frames import DATA, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, call, connected, frame
from tests.running import served
from tests.waiting import eventually

Code = grpc.StatusCode
ENHANCE_YOUR_CALM = 0xB
"""RFC 9113, 7."""


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Taskd]:
    async with taskd(database_url) as found:
        yield found


@pytest.fixture
async def ann(app: Taskd) -> AsyncIterator[Caller]:
    async with calling(app.grpc_address) as caller:
        yield caller


def taskd(database_url: str, **settings: Any) -> Taskd:
    """Return a taskd without workers."""
    given = {"role": "api", "http": "127.0.0.1:0", "grpc": "127.0.0.1:0"} | settings
    return Taskd(database_url=database_url, **given)


async def answers(caller: Caller) -> bool:
    """Return whether a call is answered."""
    try:
        await caller.call("ListTasks")
    except grpc.RpcError:
        return False
    return True


async def test_it_listens_on_a_port_of_its_own_and_leaves_it(database_url: str) -> None:
    app = taskd(database_url)
    async with app:
        address = app.grpc_address
        assert address is not None
        assert not address.endswith(":0")
        async with calling(address) as caller:
            assert await answers(caller)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address.rsplit(":", 1))
    async with taskd(database_url, grpc=address) as again:
        assert again.grpc_address == address


async def test_an_address_that_is_taken_stops_the_start_with_one_line(app: Taskd, database_url: str) -> None:
    assert app.grpc_address is not None
    other = taskd(database_url, grpc=app.grpc_address)
    with pytest.raises(StartError, match=f"gRPC can't listen on {app.grpc_address}: [^\n]*$"):
        async with other:
            pass
    await other.stop()


async def test_a_process_says_where_it_listens_and_ends_in_order(database_url: str) -> None:
    async with served(database_url, "--grpc", "127.0.0.1:0") as server, calling(server.grpc) as caller:
        watch = caller.begin("WatchTasks", pb.WatchTasksRequest(), timeout=None)
        await watch.read()
        stopping = asyncio.create_task(server.terminate())
        assert (await end_of(watch)).code is Code.UNAVAILABLE
        assert await stopping == 0


async def test_without_it_nothing_of_grpc_is_imported(database_url: str) -> None:
    program = """
import asyncio, sys
from taskd import Taskd

async def main():
    async with Taskd(database_url=sys.argv[1], http="127.0.0.1:0", grpc="off", handlers=("taskd.worker.samples",)):
        print({name.split(".")[0] for name in sys.modules} & {"grpc", "google", "grpc_health", "grpc_reflection"})

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, database_url, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert printed.decode() == "set()\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(range(256)) * 16,
        PREFACE + b"\xff" * 4096,
        PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, b"\xff" * 64),
        PREFACE + frame(SETTINGS, 0, 0, b"x"),
    ],
    ids=["HTTP/1.1", "TLS", "bytes", "frames", "fields", "settings"],
)
async def test_garbage_on_the_port_hurts_nobody_else(ann: Caller, garbage: bytes) -> None:
    watch = ann.begin("WatchTasks", pb.WatchTasksRequest(), timeout=None)
    await watch.read()
    async with connected(ann.channel_address, garbage) as raw:
        raw.writer.write_eof()
        await raw.rest()
    made = await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"))
    assert (await watch.read()).events[0].task.id == made.task.id
    watch.cancel()


@pytest.mark.parametrize(
    "metadata",
    [
        (b"x-taskd-user", b"\xff\xfe"),
        (b"x-taskd-user-bin", b"!!!"),
        (b"x-request-id", b"a\nb"),
        (b"x-\xff", b"x"),
        (b"grpc-timeout", b"x"),
        (b"grpc-encoding", b"x"),
    ],
)
async def test_bad_metadata_hurts_nobody_else(ann: Caller, metadata: tuple[bytes, bytes]) -> None:
    async with connected(ann.channel_address) as raw:
        await raw.send(call(b"/taskd.v1.TaskService/ListTasks", metadata))
        kind = None
        while kind not in (HEADERS, GOAWAY, 3):
            kind, _, _ = await raw.frame()
    assert await answers(ann)


async def test_a_method_that_is_no_text_is_none_and_hurts_nobody(app: Taskd, ann: Caller) -> None:
    watch = ann.begin("WatchTasks", pb.WatchTasksRequest(), timeout=None)
    await watch.read()
    for number in range(20):
        async with connected(ann.channel_address) as raw, calling(app.grpc_address) as other:
            await raw.send(call(b"/\xff\xfe/x"))
            # Other connections and this one: not one call is refused, not even while it is answered.
            await asyncio.gather(*(caller.call("ListTasks") for caller in (ann, other)))
            await raw.until(HEADERS)
            await raw.send(call(b"/taskd.v1.TaskService/ListTasks", stream=3))
            await raw.until(DATA)
        made = await ann.call("CreateTask", task=pb.NewTask(title=f"t{number}", kind="nobody"))
        assert (await watch.read()).events[0].task.id == made.task.id
    assert not app.failed.done()
    watch.cancel()


async def test_with_another_grpcio_it_does_not_start(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert accept.can_accept()
    # Its own loop ends with a path that is no text, and core then writes into what is gone.
    monkeypatch.delattr(accept.cygrpc, "_MethodResolver")
    app = taskd(database_url)
    with pytest.raises(StartError, match=r"^grpcio [\d.]+ is unknown here: install grpcio 1\.84[^\n]*$"):
        async with app:
            pass
    await app.stop()


async def test_a_server_that_ends_by_itself_ends_the_process(app: Taskd, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(self: grpc.aio.Server, timeout: float | None = None) -> bool:
        raise RuntimeError("the accept loop broke")

    # As it would raise then. To break it really would have core write into freed memory.
    monkeypatch.setattr(type(grpc.aio.server()), "wait_for_termination", ended)
    with pytest.raises(RuntimeError, match="the accept loop broke"):
        await app.failed


async def test_a_request_over_its_limit_is_refused(ann: Caller) -> None:
    for size, code in ((MAX_REQUEST + 1, Code.RESOURCE_EXHAUSTED), (MAX_REQUEST - 1000, Code.INVALID_ARGUMENT)):
        refusal = await ann.refused("CreateTask", task=pb.NewTask(title="t", payload="x" * size))
        assert refusal.code is code
    assert await answers(ann)


async def test_an_answer_may_be_larger_than_clients_take_by_default(app: Taskd, ann: Caller) -> None:
    drafts = [pb.NewTask(title="t", kind="nobody", payload=f'{{"x":"{"y" * 200_000}"}}') for _ in range(18)]
    for _ in range(2):
        await ann.call("BatchCreateTasks", tasks=drafts)
    refusal = await ann.refused("ListTasks")
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    async with calling(app.grpc_address, max_receive_message_length=MAX_ANSWER) as able:
        assert len((await able.call("ListTasks")).tasks) == 36


async def test_too_much_metadata_is_refused(ann: Caller) -> None:
    refusal = await refusal_of(
        ann.begin("ListTasks", pb.ListTasksRequest(), [(f"x-{number}", "x" * 1000) for number in range(20)])
    )
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    much = [(f"x-{number}", "x" * 1000) for number in range(MAX_METADATA // 1024 - 4)]
    await ann.begin("ListTasks", pb.ListTasksRequest(), much)


async def test_who_asks_too_often_whether_it_is_there_is_sent_away(ann: Caller) -> None:
    async with connected(ann.channel_address) as raw:
        await raw.send(*(frame(PING, 0, 0, bytes(8)) for _ in range(10)))
        payload = await raw.until(GOAWAY)
    assert int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM
    # Our own clients never do.
    assert OPTIONS["grpc.http2.min_ping_interval_without_data_ms"] < KEEPALIVE * 1000
    assert await answers(ann)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_it_describes_itself(ann: Caller, version: str) -> None:
    ask = ann.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    stream = ask(timeout=30)
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await stream.read()).list_services_response.service}
    assert names == {
        "taskd.v1.TaskService", "taskd.v1.WorkerService", "taskd.v1.TokenService", "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    for symbol in ("taskd.v1.TaskService", "taskd.v1.WorkerService", "taskd.v1.Task", "grpc.health.v1.Health"):
        await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        files = (await stream.read()).file_descriptor_response.file_descriptor_proto
        found = [FileDescriptorProto.FromString(one) for one in files]
        assert symbol.rpartition(".")[2] in {
            one.name for file in found for one in (*file.service, *file.message_type)
        }  # fmt: skip
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_it_ends_in_order(database_url: str) -> None:
    app = taskd(database_url)
    await app.start()
    connection = await asyncpg.connect(database_url)
    async with calling(app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"))).task
        watch = ann.begin("WatchTasks", pb.WatchTasksRequest(), timeout=None)
        await watch.read()
        async with connection.transaction():
            await connection.execute("SELECT * FROM tasks WHERE id = $1 FOR UPDATE", task.id)
            call_ = ann.begin("CancelTask", pb.CancelTaskRequest(id=task.id))
            await eventually(lambda: _waits(database_url))
            stopping = asyncio.create_task(app.stop())
            refusal = await end_of(watch)
            assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
            async with calling(ann.channel_address) as late:
                refusal = await late.refused("ListTasks")
                assert refusal.code is Code.UNAVAILABLE
            assert not stopping.done()
        # What was being answered is answered.
        assert (await call_).task.status == pb.TASK_STATUS_CANCELLED
        await stopping
    await connection.close()
    await app.stop()


async def test_in_a_hurry_nobody_is_waited_for(database_url: str) -> None:
    app = taskd(database_url)
    await app.start()
    connection = await asyncpg.connect(database_url)
    async with calling(app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=pb.NewTask(title="t", kind="nobody"))).task
        async with connection.transaction():
            await connection.execute("SELECT * FROM tasks WHERE id = $1 FOR UPDATE", task.id)
            call_ = ann.begin("CancelTask", pb.CancelTaskRequest(id=task.id))
            await eventually(lambda: _waits(database_url))
            app.hurry()
            # The row is locked still.
            await app.stop()
        assert (await refusal_of(call_)).code in (Code.UNAVAILABLE, Code.CANCELLED)
    await connection.close()


async def _waits(database_url: str) -> bool:
    connection = await asyncpg.connect(database_url)
    try:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found > 0
    finally:
        await connection.close()


async def test_many_starts_and_calls_leave_nothing(database_url: str) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for _ in range(4):
        async with taskd(database_url) as app:
            channels = [open_channel(str(app.grpc_address)) for _ in range(20)]
            for channel in channels:
                await channel.unary_unary("/taskd.v1.TaskService/ListTasks")(b"")
            for channel in channels:
                await channel.close()
        counts.append(files())
    assert counts[3] <= counts[1] + 2
