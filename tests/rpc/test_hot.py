"""Answers that are given again: they are what would be answered anew, whatever happened in between."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest

from taskd.clock import monotonic
from taskd.domain.model import Role
from taskd.parts import Parts
from taskd.rpc import peers
from taskd.rpc.hot import HotAnswers, Said
from taskd.service.again import SURE_FOR
from taskd.service.auth import BELIEVED
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import Caller, calling, refusal_of
from tests.running import Server, embedded
from tests.tokens import revoke, token
from tests.waiting import eventually

WAITING = pb.NewTask(title="T", kind="nobody")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def serving(url: str, **settings: Any) -> Any:
    return embedded(url, cache="memory", grpc="127.0.0.1:0", **settings)


def parts(server: Server) -> Parts:
    assert server.app is not None
    assert isinstance(server.app.parts, Parts)
    return server.app.parts


def answers_of(server: Server) -> HotAnswers:
    grpc_server = parts(server).grpc
    assert grpc_server is not None
    return grpc_server._calls._hot


async def ids(caller: Caller, method: str, request: Any, times: int, *metadata: tuple[str, str]) -> list[str]:
    """Make a call again and again, and return the ids that came back."""
    found = []
    for _ in range(times):
        call = caller.begin(method, request, metadata)
        await call
        found.append(str(dict(await call.initial_metadata())["x-request-id"]))
    return found


AGAIN: list[bool] = []
"""Of each call that asked for one, whether there was an answer to be given again."""


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    find = HotAnswers.find

    def watch(self: HotAnswers, said: Said) -> bytes | None:
        answer = find(self, said)
        AGAIN.append(answer is not None)
        return answer

    AGAIN.clear()
    monkeypatch.setattr(HotAnswers, "find", watch)


def hot(found: list[str]) -> bool:
    """Return whether the last two answers were given again, each with an id of its own."""
    return AGAIN[-2:] == [True, True] and found[-1] != found[-2]


async def test_what_is_given_again_is_what_was_given(database_url: str) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=WAITING)).task
        for method, fields in (("GetTask", {"id": task.id}), ("ListTasks", {}), ("ListTasks", {"kind": "nobody"})):
            request = getattr(pb, f"{method}Request")(**fields)
            assert hot(await ids(ann, method, request, 3))
            answers = {(await ann.call(method, **fields)).SerializeToString() for _ in range(3)}
            assert len(answers) == 1
            assert task.SerializeToString() in answers.pop()


async def test_a_change_is_seen_by_the_next_read_whoever_makes_it(database_url: str) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=WAITING)).task
        get, pages = pb.GetTaskRequest(id=task.id), pb.ListTasksRequest()
        for number in range(5):
            assert hot(await ids(ann, "GetTask", get, 3))
            assert hot(await ids(ann, "ListTasks", pages, 3))
            await ann.call("UpdateTask", id=task.id, patch=pb.TaskPatch(title=f"t{number}"))
            assert (await ann.begin("GetTask", get)).task.title == f"t{number}"
            assert (await ann.begin("ListTasks", pages)).tasks[0].title == f"t{number}"
        async with serving(database_url) as other, calling(other.app.grpc_address) as elsewhere:
            assert hot(await ids(ann, "GetTask", get, 3))
            await elsewhere.call("CancelTask", id=task.id)

            async def told() -> bool:
                return bool((await ann.begin("GetTask", get)).task.status == pb.TASK_STATUS_CANCELLED)

            await eventually(told)
        await ann.call("DeleteTask", id=task.id)
        assert (await ann.refused("GetTask", id=task.id)).reason == "NOT_FOUND"
        assert not (await ann.begin("ListTasks", pages)).tasks


async def test_each_user_is_given_their_own(database_url: str) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=WAITING)).task
        async with calling(server.app.grpc_address, "bob") as bob:
            for _ in range(4):
                assert (await ann.call("GetTask", id=task.id)).task.id == task.id
                assert (await bob.refused("GetTask", id=task.id)).reason == "NOT_FOUND"
                assert len((await ann.call("ListTasks")).tasks) == 1
                assert not (await bob.call("ListTasks")).tasks


async def test_a_revoked_token_is_given_nothing(database_url: str) -> None:
    made = await token(database_url)
    async with serving(database_url, auth="token") as server, calling(server.app.grpc_address) as ann:
        gate, now = parts(server).gate, [0.0]
        real = gate._believed._clock
        gate._believed._clock = gate._clock = answers_of(server)._clock = lambda: real() + now[0]
        ann.metadata = (("authorization", f"Bearer {made}"),)
        assert hot(await ids(ann, "ListTasks", pb.ListTasksRequest(), 3))
        await revoke(database_url, "ann")
        now[0] = BELIEVED
        assert (await ann.refused("ListTasks")).reason == "UNAUTHENTICATED"


async def test_who_has_a_limit_is_charged_for_each(database_url: str) -> None:
    made, root = await token(database_url), await token(database_url, "root", Role.ADMIN)
    settings = {"auth": "token", "rate_limit": 3}
    async with serving(database_url, **settings) as server, calling(server.app.grpc_address) as ann:
        ann.metadata = (("authorization", f"Bearer {made}"),)
        with pytest.raises(grpc.RpcError, match="too many calls"):
            await ids(ann, "ListTasks", pb.ListTasksRequest(), 8)
        ann.metadata = (("authorization", f"Bearer {root}"),)
        assert hot(await ids(ann, "ListTasks", pb.ListTasksRequest(), 8))


async def test_each_is_counted_and_timed_and_is_a_read_of_the_cache(database_url: str) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        catalog = parts(server).catalog
        task = (await ann.call("CreateTask", task=WAITING)).task
        await ids(ann, "GetTask", pb.GetTaskRequest(id=task.id), 10)
        assert catalog.grpc_requests.labels("TaskService/GetTask", "OK").value == 10
        assert catalog.grpc_seconds.labels("TaskService/GetTask").count == 10
        reads = {result: catalog.cache_requests.labels("task", result).value for result in ("hit", "miss")}
        assert reads == {"hit": 9, "miss": 1}


@pytest.mark.parametrize("own", [("x-request-id", "mine"), ("traceparent", TRACE)])
async def test_a_call_of_a_kind_of_its_own_is_answered_by_itself(database_url: str, own: tuple[str, str]) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        task = (await ann.call("CreateTask", task=WAITING)).task
        found = await ids(ann, "GetTask", pb.GetTaskRequest(id=task.id), 4, own)
        assert not any(AGAIN)
        assert found == ["mine"] * 4 if own[1] == "mine" else len(set(found)) == 4


async def test_where_each_call_is_logged_each_is(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        await ids(ann, "ListTasks", pb.ListTasksRequest(), 3)
        caplog.set_level(logging.INFO, "taskd.grpc")
        answers_of(server)._clock = lambda: monotonic() + SURE_FOR
        await ids(ann, "ListTasks", pb.ListTasksRequest(), 3)
    assert [record.getMessage() for record in caplog.records].count("TaskService/ListTasks OK") == 3


async def test_who_takes_nothing_is_given_nothing_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(database_url) as server, calling(server.app.grpc_address) as ann:
        await ann.call("CreateTask", task=WAITING)
        await ids(ann, "ListTasks", pb.ListTasksRequest(), 3)
        server_ = parts(server).grpc
        assert server_ is not None
        held: list[Any] = []

        def hold(name: str, size: int) -> Any:
            if size:
                raise peers._unread()
            return lambda: held.append(name)

        monkeypatch.setattr(server_._peers, "hold", hold)
        refusal = await refusal_of(ann.begin("ListTasks", pb.ListTasksRequest()))
        assert refusal.reason == "SLOW_READER"
        assert held


async def test_without_a_cache_nothing_is_given_again(database_url: str) -> None:
    async with embedded(database_url, cache="off", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        async with calling(server.app.grpc_address) as ann:
            assert not hot(await ids(ann, "ListTasks", pb.ListTasksRequest(), 4))
