"""`grpc.health.v1`: what load balancers and probes ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server

from taskd import Taskd
from taskd.rpc import health as module
from taskd.rpc.health import HealthCalls
from taskd.runtime.supervisor import Supervisor
from taskd.service.health import PartsHealth
from taskd.service.ports import PartHealth
from tests.rpc.calling import WITHIN, calling

Request, Answer = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
SERVING, NOT_SERVING, UNKNOWN = Answer.SERVING, Answer.NOT_SERVING, Answer.SERVICE_UNKNOWN
SERVICES = ("", "taskd.v1.TaskService", "taskd.v1.WorkerService")


class Part:
    """A part that is well or not, and whoever asks about it."""

    def __init__(self) -> None:
        self.ok = True
        health = PartsHealth()
        health.started()
        health.add("part", lambda: PartHealth(self.ok, "as the test says"))
        self.supervisor = Supervisor()
        self.calls = HealthCalls(health, SERVICES[1:], self.supervisor)
        self.stub: Any = None

    async def check(self, service: str = "") -> int:
        answer: Answer = await self.stub.Check(Request(service=service), timeout=WITHIN)
        return answer.status

    def watch(self, service: str = "") -> Any:
        return self.stub.Watch(Request(service=service), timeout=WITHIN)


@pytest.fixture
async def part() -> AsyncIterator[Part]:
    """Health as a server tells it; the test looks on behalf of watchers."""
    part, server = Part(), grpc.aio.server()
    add_HealthServicer_to_server(part.calls, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with calling(f"127.0.0.1:{port}") as caller:
        part.stub = HealthStub(caller.channel)
        yield part
    await part.calls.stop()
    await server.stop(0)
    await part.supervisor.stop()


@pytest.mark.parametrize("service", SERVICES)
async def test_each_service_is_as_well_as_the_process(part: Part, service: str) -> None:
    assert await part.check(service) == SERVING
    part.ok = False
    assert await part.check(service) == NOT_SERVING


async def test_another_service_is_not_known(part: Part) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await part.check("taskd.v1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = part.watch("taskd.v1")
    assert (await watch.read()).status == UNKNOWN
    watch.cancel()


async def test_who_watches_is_told_what_changes_and_only_that(part: Part) -> None:
    watches = [part.watch(service) for service in SERVICES]
    for watch in watches:
        assert (await watch.read()).status == SERVING
    for ok in (False, True, False):
        part.ok = ok
        assert await part.calls.run_once() > 0
        await part.calls.run_once()
        for watch in watches:
            assert (await watch.read()).status == (SERVING if ok else NOT_SERVING)
    for watch in watches:
        watch.cancel()


async def test_the_looks_go_on_by_themselves_until_the_stop(part: Part) -> None:
    part.calls.start()
    watch = part.watch()
    assert (await watch.read()).status == SERVING
    part.ok = False
    assert (await watch.read()).status == NOT_SERVING
    part.ok = True
    assert (await watch.read()).status == SERVING
    part.ok = False
    await part.calls.stop()
    await part.calls.stop()
    # Told at once, not at the next look.
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_one_that_does_not_read_keeps_nobody_waiting(part: Part) -> None:
    deaf = [part.watch() for _ in range(20)]
    for _ in range(200):
        part.ok = not part.ok
        await part.calls.run_once()
        await asyncio.sleep(0)
    assert await part.check() == (SERVING if part.ok else NOT_SERVING)
    for watch in deaf:
        watch.cancel()


@contextlib.asynccontextmanager
async def health_of(app: Taskd) -> AsyncIterator[Any]:
    async with calling(app.grpc_address) as caller:
        yield HealthStub(caller.channel)


async def test_it_follows_the_database(new_cluster: Any) -> None:
    cluster = await new_cluster()
    async with Taskd(database_url=cluster.url, http="127.0.0.1:0", grpc="127.0.0.1:0") as app, health_of(app) as health:
        watch = health.Watch(Request(), timeout=90)
        assert (await watch.read()).status == SERVING
        await cluster.stop()
        assert (await watch.read()).status == NOT_SERVING
        await cluster.start()
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_at_the_end_it_is_told_before_calls_are_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 3600)
    app = Taskd(database_url=database_url, role="api", http="127.0.0.1:0", grpc="127.0.0.1:0")
    async with app, health_of(app) as health, calling(app.grpc_address) as caller:
        watch = health.Watch(Request(), timeout=WITHIN)
        assert (await watch.read()).status == SERVING
        app.parts.health.stopping()
        await app.parts.grpc.stop_accepting()
        assert (await watch.read()).status == NOT_SERVING
        await caller.call("ListTasks")
        await app.stop()
        with pytest.raises(grpc.RpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
