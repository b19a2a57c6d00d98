"""`taskd serve` on each event loop, all parts at once."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from taskd.v1 import taskd_pb2, taskd_pb2_grpc
from tests.loops import factories
from tests.running import receive, served
from tests.waiting import eventually


def uses_uvloop(pid: int) -> bool:
    return "/uvloop/" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
async def test_a_task_is_made_worked_on_and_told_of_by_each_transport(database_url: str, uvloop: bool) -> None:
    if uvloop and "uvloop" not in factories():
        pytest.skip("uvloop is not installed")
    async with served(database_url, "--grpc", "127.0.0.1:0", uvloop=uvloop) as server:
        assert server.process is not None
        assert uses_uvloop(server.process.pid) is uvloop
        async with server.client() as client, server.socket() as socket:
            assert (await receive(socket))["type"] == "welcome"
            made = await client.post("/tasks", json={"title": "Hello", "kind": "echo", "payload": {"n": 1}})
            assert made.status_code == 201
            told = [(await receive(socket))["event"]["type"] for _ in range(3)]
            assert told == ["created", "started", "done"]
            assert server.grpc is not None
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                stub = taskd_pb2_grpc.TaskServiceStub(channel)
                asked = taskd_pb2.GetTaskRequest(id=made.json()["id"])
                found = (await stub.GetTask(asked, metadata=(("x-taskd-user", "ann"),))).task
            assert found.status == taskd_pb2.TASK_STATUS_DONE
            # From what is in the cache, and then by the request's very bytes.
            for _ in range(3):
                assert (await client.get(f"/tasks/{found.id}")).json()["status"] == "done"
            big = await client.post("/tasks", json={"title": "Big", "kind": "echo", "payload": {"text": "x" * 200_000}})
            assert len((await client.get(big.headers["Location"])).json()["payload"]["text"]) == 200_000
        assert await server.terminate() == 0
        await eventually(lambda: any("stopping" in line for line in server.output))
