"""A gRPC server of this project's, and clients of it that are none of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from taskd.metrics.catalog import Catalog
from taskd.rpc.accept import make_server
from taskd.rpc.calls import Calls
from taskd.rpc.hot import HotAnswers
from taskd.rpc.peers import Peers
from taskd.rpc.sever import sever
from taskd.runtime.supervisor import Supervisor
from taskd.service.auth import Gate
from taskd.service.cached import CachedReads
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub
from tests.gates import trusting
from tests.service.slow_store import Store
from tests.waiting import eventually

WITHIN = 30.0
"""Seconds that an answer may take: a guard against hanging."""

Pairs = Sequence[tuple[str, str | bytes]]


class Caller:
    """A channel, and `TaskService` as one user calls it."""

    def __init__(self, address: str, user: str = "ann", **options: Any) -> None:
        pairs = [(f"grpc.{name}", value) for name, value in options.items()]
        self.channel_address = address
        self.channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *pairs])
        self.stub: Any = TaskServiceStub(self.channel)
        self.metadata: Pairs = (("x-taskd-user", user),)

    def begin(self, method: str, request: Any, metadata: Pairs = (), timeout: float | None = WITHIN) -> Any:
        """Begin a call, and return it."""
        return getattr(self.stub, method)(request, metadata=(*self.metadata, *metadata), timeout=timeout)

    async def call(self, method: str, **fields: Any) -> Any:
        """Return the answer of a call with one answer."""
        return await self.begin(method, getattr(pb, f"{method}Request")(**fields))

    async def refused(self, method: str, **fields: Any) -> Refusal:
        """Return what a call was refused with."""
        return await refusal_of(self.begin(method, getattr(pb, f"{method}Request")(**fields)))


class Refusal:
    """A status with its details, as Google's own libraries decode it."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details()
        self.trailers = dict(error.trailing_metadata())
        self.reason, self.retry_after = "", 0.0
        self.faults: dict[str, str] = {}
        status: Status | None = rpc_status.from_call(error)
        for detail in () if status is None else status.details:
            self._take(detail)

    def _take(self, detail: Any) -> None:
        info, bad, retry = (getattr(error_details_pb2, name)() for name in ("ErrorInfo", "BadRequest", "RetryInfo"))
        if detail.Unpack(info):
            assert info.domain == "taskd"
            self.reason = info.reason
        elif detail.Unpack(bad):
            self.faults = {fault.field: fault.description for fault in bad.field_violations}
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        else:
            raise AssertionError(detail.type_url)


async def refusal_of(call: Any) -> Refusal:
    """Return what a call with one answer was refused with."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"not refused: {answer}")


async def end_of(call: Any) -> Refusal:
    """Read a stream to its end, and return what it ended with."""
    try:
        async with asyncio.timeout(WITHIN):
            while await call.read() is not grpc.aio.EOF:
                pass
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError("ended well")


async def with_deadline(begin: Callable[[float], Any], reached: Callable[[], Awaitable[bool]]) -> Any:
    """Return a call that got as far as `reached` says before its deadline, which is near.

    Args:
        begin: begins the call, given the seconds that it may take.
    """
    seconds = 0.2
    while True:
        call = begin(seconds)

        async def looked(call: Any = call) -> str:
            return "reached" if await reached() else "late" if call.done() else ""

        if await eventually(looked) == "reached":
            return call
        seconds *= 4


@contextlib.asynccontextmanager
async def calling(address: str | None, user: str = "ann", **options: Any) -> AsyncIterator[Caller]:
    """Open a channel of one user."""
    assert address is not None
    caller = Caller(address, user, **options)
    try:
        yield caller
    finally:
        await caller.channel.close()


class Service:
    """Any service: what the test does not say is not there."""

    def __init__(self, **calls: Any) -> None:
        self.__dict__.update(calls)

    def __getattr__(self, name: str) -> Any:
        return self._none

    async def _none(self, *_: Any) -> Any:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def answering(service: Service, *, gate: Gate | None = None, **options: Any) -> AsyncIterator[Answering]:
    """Serve a service as `TaskService`, through `Calls`, and nothing else."""
    catalog = Catalog()
    port = 0
    supervisor = Supervisor()
    peers = Peers(lambda doomed: sever(doomed, port), supervisor)
    gate = gate or trusting()
    # Nothing is kept, so nothing is given again.
    hot = HotAnswers(CachedReads(Store(), None), gate.believes)
    calls = Calls(gate, catalog, peers, hot, **options)
    descriptor = pb.DESCRIPTOR.services_by_name["TaskService"]
    services = {descriptor.full_name: calls.handlers(descriptor, service)}
    server = make_server(services, calls.others(), {}, peers, supervisor)
    port = server.add_insecure_port("127.0.0.1:0")
    address = f"127.0.0.1:{port}"
    await server.start()
    try:
        async with calling(address) as caller:
            yield Answering(calls, catalog, caller)
    finally:
        await server.stop(0)


class Answering:
    """`Calls` at work, and a caller."""

    def __init__(self, calls: Calls, catalog: Catalog, caller: Caller) -> None:
        self.calls = calls
        self.catalog = catalog
        self.caller = caller

    def counted(self, method: str, code: str) -> float:
        """Return how many calls of a method ended with a code."""
        return self.catalog.grpc_requests.labels(method, code).value


