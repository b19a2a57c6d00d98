"""A page of tasks that no message can carry: refused in words, and put together from parts by a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from taskd import Taskd
from taskd.domain.model import ListQuery, User
from taskd.rpc import calls
from taskd.rpc.channel import open_channel
from taskd.rpc.status import error_of
from taskd.rpc.upstream import RemoteTasks
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub
from tests.running import embedded

ANN = User("ann")


@pytest.fixture
async def app(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Taskd]:
    monkeypatch.setattr(calls, "MAX_ANSWER", 100_000)
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        drafts = [{"title": f"{n}", "kind": "k", "description": "x" * 20_000} for n in range(7)]
        await server.app.tasks.create_many(drafts, owner="ann")
        yield server.app


async def test_it_is_refused_in_words(app: Taskd) -> None:
    channel = open_channel(app.grpc_address or "")
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await TaskServiceStub(channel).ListTasks(
                pb.ListTasksRequest(), metadata=(("x-taskd-user", "ann"),), timeout=30
            )
    finally:
        await channel.close()
    error = refused.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = error_of(error.code(), error.details() or "", error.trailing_metadata() or ())
    assert found.code == "too-large"
    assert "ask for a smaller `limit`" in str(found)
    counted = app.parts.catalog.grpc_requests.labels("TaskService/ListTasks", "RESOURCE_EXHAUSTED")
    assert counted.value == 1


async def test_a_gateway_puts_it_together(app: Taskd) -> None:
    channel = open_channel(app.grpc_address or "")
    try:
        remote = RemoteTasks(channel)
        page = await remote.list(ANN, ListQuery("ann", limit=6))
        assert [task.title for task in page.tasks] == ["6", "5", "4", "3", "2", "1"]
        rest = await remote.list(ANN, ListQuery("ann", limit=6, cursor=page.next_cursor))
        assert ([task.title for task in rest.tasks], rest.next_cursor) == (["0"], None)
        assert len((await remote.list(ANN, ListQuery("ann"))).tasks) == 7
    finally:
        await channel.close()
