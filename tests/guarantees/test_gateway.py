"""A gateway, and what stands behind it: killed, restarted, replaced, away; and what clients notice of that."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import LOG_START
from taskd.rpc.channel import open_channel
from taskd.store.migrate import migrate
from tests.fronts import gateway
from tests.names import FIRST, SECOND, Names, free_port, naming
from tests.running import Server, embedded, receive, start
from tests.waiting import eventually

HEALED_WITHIN = 5
OLD = encode_log_cursor(LogCursor(b"\1" * 8, LOG_START))


class Follower:
    """Reads the titles of created tasks in the background, and how it ended, if it did."""

    def __init__(self, events: AsyncIterator[dict[str, Any]]) -> None:
        self.titles: list[str] = []
        self._reading = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[dict[str, Any]]) -> None:
        async for event in events:
            if event["type"] == "created":
                self.titles.append(event["task"]["title"])

    @property
    def ended(self) -> bool:
        return self._reading.done()

    def stop(self) -> None:
        self._reading.cancel()


async def of_socket(socket: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    async for message in socket:
        yield json.loads(message).get("event", {"type": ""})


async def of_stream(stream: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in stream.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])


async def post(client: httpx.AsyncClient, title: str) -> int:
    answer = await client.post("/tasks", json={"title": title, "kind": "nobody"})
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["type"] == "/problems/unavailable"
    return answer.status_code


async def posted(client: httpx.AsyncClient, title: str) -> bool:
    return await post(client, title) == 201


@contextlib.asynccontextmanager
async def upstreams(database_url: str, *addresses: str) -> AsyncIterator[dict[str, Server]]:
    """Run processes that serve gRPC at these addresses; those that the test puts in their place are ended too."""
    running: dict[str, Server] = {}
    try:
        for address in addresses:
            running[address] = await start(database_url, "--grpc", address, handlers="")
        yield running
    finally:
        for server in running.values():
            await server.kill()


async def test_an_upstream_that_is_killed_comes_back_and_nobody_has_missed_anything(database_url: str) -> None:
    address = f"{FIRST}:{free_port()}"
    async with contextlib.AsyncExitStack() as stack:
        enter: Callable[..., Any] = stack.enter_async_context
        running = await enter(upstreams(database_url, address))
        server: Server = await enter(gateway(address, cache="memory"))
        other: Server = await enter(embedded(database_url, role="api"))
        client, elsewhere = await enter(server.client()), await enter(other.client())
        socket = await enter(server.socket())
        followers = [Follower(of_socket(socket)), Follower(of_stream(await enter(client.stream("GET", "/events"))))]
        begin = await _cursor_now(server)

        assert await post(client, "before") == 201
        await running[address].kill()
        assert await post(client, "away") == 503
        assert (await client.get("/livez")).status_code == 200
        parts = await eventually(lambda: _not_ready(client))
        assert {name for name, part in parts.items() if not part["ok"]} == {"upstream"}
        assert parts.keys() == {"process", "upstream", "cache"}
        assert await post(elsewhere, "meanwhile") == 201

        running[address] = await start(database_url, "--grpc", address, handlers="")
        back = time.monotonic()
        await eventually(server.ready)
        assert time.monotonic() - back < HEALED_WITHIN
        assert await post(client, "after") == 201
        for follower in followers:
            await eventually(lambda follower=follower: "after" in follower.titles)
            assert follower.titles == ["before", "meanwhile", "after"]
            # It is the same connection all along.
            assert not follower.ended
            follower.stop()
        async with server.socket(after=begin) as late:
            assert (await receive(late))["recovered"] is True
            titles = [(await receive(late))["event"]["task"]["title"] for _ in range(3)]
            assert titles == ["before", "meanwhile", "after"]


async def _cursor_now(server: Server) -> str:
    async with server.socket(client="asks") as socket:
        cursor: str = (await receive(socket))["cursor"]
        return cursor


async def _not_ready(client: httpx.AsyncClient) -> dict[str, Any] | None:
    answer = await client.get("/readyz")
    return None if answer.status_code == 200 else answer.json()["parts"]


async def test_of_two_upstreams_either_may_die(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    first, second = f"{FIRST}:{port}", f"{SECOND}:{port}"
    async with contextlib.AsyncExitStack() as stack:
        enter: Callable[..., Any] = stack.enter_async_context
        names: Names = await enter(naming())
        monkeypatch.setattr("taskd.gateway.open_channel", functools.partial(open_channel, resolver=names.address))
        running = await enter(upstreams(database_url, first, second))
        server: Server = await enter(gateway(f"taskd.test:{port}"))
        client = await enter(server.client())
        follower = Follower(of_socket(await enter(server.socket())))
        wanted = []
        for n, doomed in enumerate((first, second)):
            await eventually(lambda: _used(client, running))
            wanted += [f"before {n}", f"after {n}"]
            assert await post(client, f"before {n}") == 201
            await running[doomed].kill()
            died = time.monotonic()
            # Whichever was watched, the other tells of what happens.
            await eventually(lambda n=n: posted(client, f"after {n}"))
            await eventually(lambda n=n: f"after {n}" in follower.titles)
            assert time.monotonic() - died < HEALED_WITHIN
            running[doomed] = await start(database_url, "--grpc", doomed, handlers="")
        assert follower.titles == wanted
        assert not follower.ended
        follower.stop()


async def _used(client: httpx.AsyncClient, running: dict[str, Server]) -> bool:
    """Ask the gateway for something, and return whether all servers have answered calls of it by now."""
    assert (await client.get("/tasks")).status_code == 200
    lists = {"method": "TaskService/ListTasks"}
    return all([await one.counted("taskd_grpc_requests_total", **lists) for one in running.values()])


async def test_a_gateway_starts_before_its_upstream(database_url: str) -> None:
    address = f"{FIRST}:{free_port()}"
    async with gateway(address, ready=False) as server, server.client() as client:
        assert (await client.get("/livez")).status_code == 200
        assert not (await _not_ready(client) or {})["upstream"]["ok"]
        assert await post(client, "away") == 503
        # Where a cursor stands, nobody can say yet.
        assert (await client.get("/events", params={"after": OLD})).status_code == 503
        async with server.socket() as early, server.socket(client="resumes", after=OLD) as resuming:
            welcome = await receive(early)
            async with embedded(database_url, role="api", grpc=address):
                await eventually(server.ready)
                assert await _code(early) == 1012
                async with server.socket(after=welcome["cursor"]) as again:
                    assert (await receive(again))["recovered"] is False
                # This one was not greeted before: it only waited.
                with contextlib.suppress(ConnectionClosed):
                    assert (await receive(resuming))["recovered"] is False


async def _code(socket: ClientConnection) -> int:
    """Return the code that a socket is closed with."""
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                pass
    assert socket.close_code is not None
    return socket.close_code


async def test_with_another_database_behind_the_upstream_all_begin_anew(database_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        enter: Callable[..., Any] = stack.enter_async_context
        behind: Server = await enter(embedded(database_url, role="api", grpc=f"{FIRST}:0"))
        assert behind.app is not None
        parts: Any = behind.app.parts
        server: Server = await enter(gateway(behind.app.grpc_address, cache="memory", cache_ttl=3600))
        client, socket = await enter(server.client()), await enter(server.socket())
        cursor = (await receive(socket))["cursor"]
        path = (await client.post("/tasks", json={"title": "t", "kind": "nobody"})).headers["Location"]
        assert (await client.get(path)).json()["version"] == 1
        # As after a restore: another state, of which no event tells, and another name of the log.
        for statement in (
            "ALTER TABLE task_states DISABLE TRIGGER USER",
            "UPDATE task_states SET version = 7",
            "UPDATE meta SET uuid = gen_random_uuid()",
        ):
            await parts.database.execute(statement)
        parts.feed.doubt()
        assert await _code(socket) == 1012
        assert (await client.get(path)).json()["version"] == 7
        async with server.socket(after=cursor) as again:
            assert (await receive(again))["recovered"] is False


async def test_the_outage_of_the_database_behind_it_is_one_of_the_gateway(new_cluster: Any) -> None:
    cluster = await new_cluster()
    await migrate(cluster.url)
    async with embedded(cluster.url, role="api", grpc=f"{FIRST}:0") as behind:
        assert behind.app is not None
        front = gateway(behind.app.grpc_address)
        async with front as server, server.client() as client, server.socket() as socket:
            follower = Follower(of_socket(socket))
            assert await post(client, "before") == 201
            await cluster.stop()
            assert await post(client, "away") == 503
            await cluster.start()
            await eventually(lambda: posted(client, "after"))
            await eventually(lambda: follower.titles == ["before", "after"])
            follower.stop()


async def test_a_request_is_the_same_one_upstream(database_url: str) -> None:
    address = f"{FIRST}:{free_port()}"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with upstreams(database_url, address) as running, gateway(address) as server:
        async with server.client() as client:
            del client.headers["X-Taskd-User"]
            headers = {"X-Request-Id": "the-request", "traceparent": trace}
            answer = await client.post("/tasks", params={"user": "Аня"}, json={"title": "t"}, headers=headers)
            assert (answer.status_code, answer.json()["owner"]) == (201, "Аня")
            assert answer.headers["X-Request-Id"] == "the-request"

        def logged() -> list[dict[str, Any]]:
            entries = [json.loads(line) for line in running[address].output]
            return [entry for entry in entries if entry.get("request_id") == "the-request"]

        (entry,) = await eventually(logged)
        assert entry["message"] == "TaskService/CreateTask OK"
        assert (entry["traceparent"], entry["user"]) == (trace, "Аня")


async def test_a_gateway_counts_what_it_does_and_has_no_numbers_of_what_it_has_not(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc=f"{FIRST}:0") as behind:
        assert behind.app is not None
        async with gateway(behind.app.grpc_address, cache="memory") as server, server.client() as client:
            await post(client, "t")
            for _ in range(2):
                await client.get("/tasks")
            assert await server.counted("taskd_upstream_up") == 1
            assert await server.counted("taskd_cache_requests_total", cache="list", result="hit") == 1
            assert await server.counted("taskd_http_requests_total", route="/tasks") == 3
            families = read_text((await client.get("/metrics")).text)
            shown = {sample.name for family in families for sample in family.samples}
            absent = ("taskd_tasks", "taskd_queue", "taskd_database_", "taskd_event_log")
            assert [name for name in shown if name.startswith(absent) and not name.startswith("taskd_tasks_")] == []
            assert (await client.get("/metrics", params={"format": "openmetrics"})).text.endswith("# EOF\n")
            summary = (await client.get("/metrics", params={"format": "json"})).json()
            assert (summary["tasks"]["total"], summary["cache"]["hits"]) == (0, 1)
            assert behind.app.parts.grpc is not None  # type: ignore[union-attr]
            await behind.app.stop()
            await eventually(lambda: _is_down(server))


async def _is_down(server: Server) -> bool:
    return await server.counted("taskd_upstream_up") == 0


async def test_its_end_is_told_to_sockets_and_leaves_nothing(database_url: str) -> None:
    def held() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    async with embedded(database_url, role="api", grpc=f"{FIRST}:0") as behind:
        assert behind.app is not None

        async def once() -> None:
            async with contextlib.AsyncExitStack() as stack:
                server: Server = await stack.enter_async_context(gateway(behind.app.grpc_address, cache="memory"))  # type: ignore[union-attr]
                async with server.client() as client, server.socket() as socket:
                    assert await post(client, "t") == 201
                    await stack.aclose()
                    assert await _code(socket) == 1001

        await once()
        before = held()
        for _ in range(3):
            await once()
        await eventually(lambda: held() <= before)


def test_no_driver_of_a_database_is_loaded() -> None:
    code = """
import asyncio, sys
from taskd import Taskd
async def main():
    async with Taskd(role="gateway", upstream="127.0.0.1:1", http="127.0.0.1:0") as app:
        print(app.http_address, app.grpc_address)
asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith(("asyncpg", "taskd.store"))))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    address, modules = found.stdout.splitlines()
    assert address.startswith("127.0.0.1:")
    assert address.endswith(" None")
    assert modules == "[]"
