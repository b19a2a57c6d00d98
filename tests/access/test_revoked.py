"""A token that is revoked is good for nothing within 5 s, in every process: calls, streams, sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from websockets.asyncio.client import ClientConnection

from taskd.client import Client, Worker
from taskd.domain.model import Role
from taskd.errors import Unauthenticated
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import WorkerServiceStub
from tests.fronts import gateway
from tests.running import Server, embedded, receive
from tests.tokens import revoke, token
from tests.waiting import eventually

WITHIN = 30.0
"""Seconds: a guard against hanging. That less than 5 pass follows from two constants (tests/service/test_auth.py)."""


@pytest.fixture
async def servers(database_url: str) -> AsyncIterator[list[Server]]:
    """Two processes over one database (as far as they know), and a gateway."""
    async with contextlib.AsyncExitStack() as stack:
        settings = {"auth": "token", "grpc": "127.0.0.1:0"}
        found = [await stack.enter_async_context(embedded(database_url, **settings)) for _ in range(2)]
        app = found[0].app
        assert app is not None
        itself = await token(database_url, "the gateway", Role.ADMIN)
        found.append(await stack.enter_async_context(gateway(app.grpc_address, auth="token", upstream_token=itself)))
        yield found


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Return how a socket was closed."""
    async with asyncio.timeout(WITHIN):
        await socket.wait_closed()
    return socket.close_code or 0, socket.close_reason or ""


async def ended(answer: httpx.Response) -> bytes:
    """Return the rest of a stream, up to its end in order."""
    async with asyncio.timeout(WITHIN):
        return b"".join([piece async for piece in answer.aiter_raw()])


async def test_everything_of_its_user_ends_everywhere(servers: list[Server], database_url: str) -> None:
    anns, bobs = await token(database_url), await token(database_url, "bob")
    async with contextlib.AsyncExitStack() as stack:
        sockets, streams, clients = [], [], []
        for server in servers:
            for made, user in ((anns, "ann"), (bobs, "bob")):
                socket = await stack.enter_async_context(server.socket(token=made))
                assert (await receive(socket))["user"] == user
                sockets.append(socket)
            client = await stack.enter_async_context(server.client(token=anns))
            streams.append(await stack.enter_async_context(client.stream("GET", "/events")))
            clients.append(client)
        watches = []
        for server in servers[:2]:
            assert server.app is not None
            caller = await stack.enter_async_context(Client(str(server.app.grpc_address), token=anns))
            events = caller.events()
            await events.start()
            watches.append(events)
        await revoke(database_url, "ann")
        for socket in sockets[::2]:
            assert await closed(socket) == (4003, "token revoked")
        for stream in streams:
            assert b"welcome" in await ended(stream)
        for events in watches:
            with pytest.raises(Unauthenticated):
                async with asyncio.timeout(WITHIN):
                    await anext(events)
        for client in clients:
            assert (await client.get("/tasks")).status_code == 401
        # Others notice nothing.
        for socket in sockets[1::2]:
            await socket.send('{"type":"ping"}')
            assert (await receive(socket))["type"] == "pong"
        assert all(server.app is not None and server.app.parts.front.hub.connections == 1 for server in servers)  # type: ignore[union-attr]


async def test_a_workers_stream_ends(servers: list[Server], database_url: str) -> None:
    made = await token(database_url, "worker", Role.WORKER)
    assert servers[0].app is not None
    async with grpc.aio.insecure_channel(str(servers[0].app.grpc_address)) as channel:
        call: Any = WorkerServiceStub(channel).Work(metadata=(("authorization", f"Bearer {made}"),))
        await call.write(pb.WorkRequest(hello=pb.Hello(kinds=["echo"], slots=1)))
        assert (await call.read()).HasField("welcome")
        await revoke(database_url, "worker")
        async with asyncio.timeout(WITHIN):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_of_reflection_ends(servers: list[Server], database_url: str) -> None:
    made = await token(database_url)
    assert servers[0].app is not None
    async with grpc.aio.insecure_channel(str(servers[0].app.grpc_address)) as channel:
        metadata = (("authorization", f"Bearer {made}"),)
        call: Any = ServerReflectionStub(channel).ServerReflectionInfo(metadata=metadata)
        await call.write(ServerReflectionRequest(list_services=""))
        await call.read()
        await revoke(database_url, "ann")
        async with asyncio.timeout(WITHIN):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_worker_with_a_token_works_for_all_owners(servers: list[Server], database_url: str) -> None:
    made = await token(database_url, "worker", Role.WORKER)
    assert servers[0].app is not None
    worker = Worker(str(servers[0].app.grpc_address), token=made)

    @worker.handler("shout")
    async def shout(task: Any, _: Any) -> Any:
        return {"owner": task.owner}

    running = asyncio.create_task(worker.run())
    try:
        for user in ("ann", "bob"):
            # Through the gateway, and the other process.
            async with servers[2 if user == "ann" else 1].client(token=await token(database_url, user)) as client:
                task = (await client.post("/tasks", json={"title": "T", "kind": "shout"})).json()

                async def done(client: httpx.AsyncClient = client, path: str = f"/tasks/{task['id']}") -> bool:
                    return bool((await client.get(path)).json()["status"] == "done")

                await eventually(done)
                assert (await client.get(f"/tasks/{task['id']}")).json()["result"] == {"owner": user}
    finally:
        await worker.stop(5)
        await running


async def test_a_gateway_whose_own_token_is_bad_says_so_and_blames_no_caller(database_url: str) -> None:
    made = await token(database_url)
    itself = await token(database_url, "the gateway", Role.USER)
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        upstream = server.app.grpc_address
        async with gateway(upstream, ready=False, auth="token", upstream_token=itself) as front:
            async with front.client(token=made) as ann:
                answer = await ann.get("/tasks")
                assert answer.status_code == 503
                assert "the upstream" in answer.json()["detail"]

            async def told() -> bool:
                async with httpx.AsyncClient(base_url=front.url) as probe:
                    return "admins" in (await probe.get("/readyz")).json()["parts"]["upstream"]["detail"]

            await eventually(told)


async def test_the_first_start_says_how_to_make_a_token(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with embedded(database_url, auth="token"):
        pass
    assert "nobody has a token yet: `taskd token create --user NAME --role admin` makes one" in caplog.text
    caplog.clear()
    await token(database_url)
    async with embedded(database_url, auth="token"):
        pass
    assert caplog.text == ""


async def test_no_token_is_logged_wherever_it_stands(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = await token(database_url)
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0") as server:
        async with server.client(token=made) as ann:
            await ann.get("/tasks")
            await ann.get(f"/tasks?token={made}")
        async with server.socket(token=made) as socket:
            await receive(socket)
        assert server.app is not None
        async with Client(str(server.app.grpc_address), token=made) as client:
            await client.list()
        assert made not in repr(server.app.settings)
    own = [record for record in caplog.records if record.name.startswith(("taskd", "asyncio"))]
    assert any("422" in record.getMessage() for record in own)
    assert not [record for record in own if made in f"{record.getMessage()} {record.__dict__}"]
