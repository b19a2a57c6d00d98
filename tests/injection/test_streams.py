"""Events keep their frames: in Server-Sent Events, on WebSockets, and over gRPC."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from taskd.v1 import taskd_pb2 as pb
from tests.fronts import both, served_by
from tests.injection.hostile import NUL, TEXTS
from tests.rpc.calling import Caller, refusal_of
from tests.rpc.working import done, working
from tests.running import embedded, receive


async def events_of(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Yield events as a browser reads them (HTML standard, section 9.2.6)."""
    fields: dict[str, list[str]] = {}
    rest = b""
    async for data in answer.aiter_raw():
        # Any of the three ends a line, and nothing else does.
        *lines, rest = (rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if not line:
                if "data" in fields:
                    yield {name: "\n".join(values) for name, values in fields.items()}
                fields = {}
            else:
                name, _, value = line.decode().partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))


def assert_framed(event: dict[str, str], title: str) -> None:
    """One event, of the three fields and no other, with the text whole in its one line of data."""
    assert event.keys() == {"event", "id", "data"}
    assert event["event"] == "created"
    assert json.loads(event["data"])["task"]["title"] == title


@both
async def test_no_text_ends_an_event(database_url: str, front: str) -> None:
    async with (
        served_by(front, database_url, role="api") as server, server.client() as client,
        client.stream("GET", "/events") as answer, server.socket() as socket,
    ):  # fmt: skip
        events = events_of(answer)
        assert (await anext(events))["event"] == "welcome"
        assert (await receive(socket))["type"] == "welcome"
        for text in TEXTS.values():
            body = {"title": text, "description": text, "payload": {text: text}}
            assert (await client.post("/tasks", json=body)).status_code == 201
            assert_framed(await anext(events), text)
            frame = await receive(socket)
            assert (frame["type"], frame["event"]["task"]["title"]) == ("event", text)


async def test_json_that_a_worker_wrote_in_lines_is_one(database_url: str) -> None:
    # Line ends between its values are JSON as well (RFC 8259 2), and would end lines of a stream.
    result = '{\r\n"a":\n\n1,\r"b": "event: x"\n}'
    async with (
        embedded(database_url, role="api", grpc="127.0.0.1:0") as server, server.client("worker") as client,
        client.stream("GET", "/events") as answer, working(server.app) as stream,
    ):  # fmt: skip
        events = events_of(answer)
        await anext(events)
        await stream.hello("k")
        await client.post("/tasks", json={"title": "t", "kind": "k"})
        (task,) = await stream.tasks()
        await stream.settle(done(task, result))
        seen: dict[str, Any] = {}
        while seen.get("status") != "done":
            seen = json.loads((await anext(events))["data"])["task"]
        assert seen["result"] == json.loads(result)


@both
async def test_what_opens_a_socket_badly_is_told_so_in_a_whole_answer(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api") as server:
        for text in [*TEXTS.values(), NUL]:
            for name in ("client", "after", "user", "colour"):
                query = {name: text} if name != "user" else {"user": text, "client": "no name"}
                with pytest.raises(InvalidStatus) as refused:
                    await server.socket(**query).__aenter__()
                answer = refused.value.response
                assert answer.status_code == 422
                assert json.loads(answer.body)["errors"]
                assert "X-Injected" not in answer.headers


async def test_a_socket_is_closed_with_words_of_the_servers_own(database_url: str) -> None:
    async with embedded(database_url, role="api") as server:
        for text in TEXTS.values():
            messages = [text, json.dumps({"type": text}), json.dumps({"type": "subscribe", "kinds": [text]}),
                        json.dumps({"type": "subscribe", text: []}),
                        json.dumps({"type": "subscribe", "tasks": [text]})]  # fmt: skip
            for message in messages:
                async with server.socket() as socket:
                    await receive(socket)
                    await socket.send(message)
                    with contextlib.suppress(ConnectionClosed):
                        while json.loads(await socket.recv())["type"] not in ("pong", "subscribed"):
                            pass
                        continue
                    assert socket.close_code == 1008
                    assert (socket.close_reason or "").isprintable()
                    assert 0 < len((socket.close_reason or "").encode()) <= 123


async def test_only_the_servers_own_subprotocol_is_picked(database_url: str) -> None:
    async with embedded(database_url, role="api") as server:
        url = f"ws://{server.address}/ws"
        async with connect(url, subprotocols=["bearer.x", "evil", "taskd.v1"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "taskd.v1"
        async with connect(url, subprotocols=["evil"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol is None


async def test_what_grpc_refuses_comes_back_in_words_that_fit_a_trailer(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        assert server.app.grpc_address is not None
        caller = Caller(server.app.grpc_address)
        for text in [*TEXTS.values(), NUL]:
            for method, request in (
                ("GetTask", pb.GetTaskRequest(id=text)),
                ("ListTasks", pb.ListTasksRequest(cursor=text)),
                ("SearchTasks", pb.SearchTasksRequest(query="x", cursor=text)),
                ("CreateTask", pb.CreateTaskRequest(task=pb.NewTask(title="t", payload=text))),
                ("CreateTask", pb.CreateTaskRequest(task=pb.NewTask(title="t", kind=text))),
                ("CreateTask", pb.CreateTaskRequest(task=pb.NewTask(title="t"), idempotency_key=f" {text}")),
                ("CreateTask", pb.CreateTaskRequest(
                    task=pb.NewTask(title="t", payload=json.dumps({"a": {text: text}, "b": NUL})))),
            ):  # fmt: skip
                refused = await refusal_of(caller.begin(method, request))
                assert refused.code.name == "INVALID_ARGUMENT"
                assert refused.faults, method
                assert all(map(str.isprintable, refused.faults)), refused.faults
                assert set(refused.trailers) <= {"grpc-status-details-bin"}
        await caller.channel.close()
