"""The gRPC server: the services, health and reflection on one port, in the event loop of all else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from taskd.errors import StartError
from taskd.metrics.catalog import Catalog
from taskd.rpc.accept import make_server
from taskd.rpc.calls import Calls, Context, Handler
from taskd.rpc.channel import KEEPALIVE, KEEPALIVE_ANSWER, MAX_ANSWER, MAX_REQUEST, server_credentials
from taskd.rpc.health import HealthCalls
from taskd.rpc.hot import HotAnswers
from taskd.rpc.peers import Peers
from taskd.rpc.sever import sever
from taskd.rpc.tasks import TaskCalls
from taskd.rpc.tokens import TokenCalls
from taskd.rpc.watch import Watches
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.service.again import Standing
from taskd.service.auth import Gate
from taskd.service.ports import Feed, Health, Reads, Tasks, Tokens
from taskd.tls import Tls
from taskd.v1 import taskd_pb2 as pb

logger = logging.getLogger("taskd.grpc")

MAX_STREAMS = 1000
"""Calls that are open at once on one connection (RFC 9113 6.5.2); a client waits with more."""

MAX_CONNECTIONS = 10_000
"""Connections at once; core closes others as it accepts them."""

BEGINS_WITHIN = 10.0
"""Seconds that a connection may take for its preface and first settings (RFC 9113, 3.4), as for a head over HTTP."""

IDLE = 300.0
"""Seconds without a call after which a connection is closed; a client that has more to say makes another."""

MAX_PENDING = 10_000
"""Calls of all connections that wait to be looked at."""

MAX_METADATA = 16 * 1024
"""Bytes of a call's metadata, as of the head of a request over HTTP."""

OPTIONS = {
    "grpc.max_receive_message_length": MAX_REQUEST,
    "grpc.max_send_message_length": MAX_ANSWER,
    "grpc.max_metadata_size": MAX_METADATA,
    "grpc.absolute_max_metadata_size": MAX_METADATA,
    "grpc.max_concurrent_streams": MAX_STREAMS,
    "grpc.max_allowed_incoming_connections": MAX_CONNECTIONS,
    "grpc.server_handshake_timeout_ms": round(BEGINS_WITHIN * 1000),
    "grpc.max_connection_idle_ms": round(IDLE * 1000),
    # A connection whose other side is gone, though nobody closed it, is found by asking.
    "grpc.keepalive_time_ms": round(KEEPALIVE * 1000),
    "grpc.keepalive_timeout_ms": round(KEEPALIVE_ANSWER * 1000),
    "grpc.keepalive_permit_without_calls": 1,
    # Core would wait a minute for the answer, and ask a silent connection only twice.
    "grpc.http2.ping_timeout_ms": round(KEEPALIVE_ANSWER * 1000),
    "grpc.http2.max_pings_without_data": 0,
    # Clients that ask more often are sent away with ENHANCE_YOUR_CALM; ours ask every `KEEPALIVE` seconds.
    "grpc.http2.min_ping_interval_without_data_ms": round(KEEPALIVE * 500),
    # Beyond so many that wait to be looked at, core cancels calls at random, good ones too.
    "grpc.server.max_pending_requests": MAX_PENDING,
    "grpc.server.max_pending_requests_hard_limit": MAX_PENDING,
    # Two servers on one port would share its connections, and neither would notice.
    "grpc.so_reuseport": 0,
}
"""Of gRPC core: include/grpc/impl/channel_arg_names.h."""

# `maximum_concurrent_rpcs` would count a stream that stays as much as a call that is worked on: see `calls.MOST_OPEN`.

LONGEST = 86_400.0
"""Seconds that streams may go on once no more calls are taken; `stop` ends them."""

LOOK_EVERY = 0.5
"""Seconds between looks whether the server still takes calls."""

_SERVICES = pb.DESCRIPTOR.services_by_name
_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class GrpcServer:
    """Serves `taskd.v1`. Call `start`, and at the end `stop_accepting`, `drain`, `stop`.

    Args:
        tasks, reads, feed, health: the service.
        views: says whether a view is what a read would give now.
        work: the calls of `WorkerService`.
        tokens: those that there are, for gateways.
        gate: lets callers in.
        tls: the server's certificate; None: no TLS.
        supervisor: owns what runs beside the calls.
        catalog: where calls are counted.
    """

    def __init__(
        self,
        tasks: Tasks,
        reads: Reads,
        views: Standing,
        feed: Feed,
        health: Health,
        work: object,
        tokens: Tokens,
        gate: Gate,
        tls: Tls | None,
        supervisor: Supervisor,
        catalog: Catalog,
    ) -> None:
        self.address: str | None = None
        """`host:port`, once it has started."""
        self.watches = Watches(feed)
        self._port = 0
        self._peers = Peers(lambda doomed: sever(doomed, self._port), supervisor)
        calls = self._calls = Calls(gate, catalog, self._peers, HotAnswers(views, gate.believes))
        self._tls = tls
        self._supervisor = supervisor
        parts = {
            "TaskService": TaskCalls(tasks, reads, feed, self.watches),
            "WorkerService": work,
            "TokenService": TokenCalls(tokens),
        }
        self._services = {
            _SERVICES[name].full_name: calls.handlers(_SERVICES[name], part) for name, part in parts.items()
        }
        names = [service.full_name for service in _SERVICES.values()]
        self._health = HealthCalls(health, names, supervisor)
        self._reflected = [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, *_REFLECTION]
        self._server: grpc.aio.Server | None = None
        self._guard = Periodic("grpc server", self.run_once, supervisor, Backoff(0.05, 1.0))

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: a name or address.
            port: 0 takes any; `address` tells which.

        Raises:
            StartError: the address can't be had, or grpcio is another than `accept` knows.
        """
        shown = f"[{host}]" if ":" in host else host
        try:
            found = await self._serve(f"{shown}:{port}")
        except RuntimeError:
            certificate = "" if self._tls is None else ", or the certificate is of a kind that gRPC does not know"
            why = f"the address is taken, or is none of here{certificate}"
            raise StartError(f"gRPC can't listen on {shown}:{port}: {why}") from None
        self.address = f"{shown}:{found}"
        self._port = found
        self._peers.start()
        self._health.start()
        self._guard.start()

    async def _serve(self, address: str) -> int:
        """Begin to take calls; return the port."""
        services = {**self._services, **self._health.handlers(), **self._reflection()}
        server = make_server(services, self._calls.others(), OPTIONS, self._peers, self._supervisor)
        if self._tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(self._tls))
        await server.start()
        self._server = server
        return port

    async def run_once(self) -> float:
        """Return the seconds until the next look.

        Nothing is known that ends the server by itself (see `accept`). If something does, it is a bug, and ends the
        process: core writes into what such a server has let go.
        """
        if self._server is not None:
            # Not waiting: it raises what the server ended with.
            await self._server.wait_for_termination(0)
        return LOOK_EVERY

    async def stop_accepting(self) -> None:
        """Tell who asks that this server is going away, before it is gone."""
        await self._health.stop()

    async def drain(self, seconds: float) -> None:
        """Take no more calls, end the watches, and let other calls end for up to `seconds`.

        Streams of workers stay until `stop`: what they run has its own time.
        """
        await self._guard.stop()
        self.watches.stop()
        if self._server is not None:
            self._supervisor.spawn(self._server.stop(LONGEST), "grpc stop")
        await self._calls.idle(seconds)

    async def stop(self) -> None:
        """End what is left. Safe twice, and before `start`."""
        await self._health.stop()
        await self._guard.stop()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)
        await self._peers.stop()

    def _reflection(self) -> dict[str, dict[str, Handler]]:
        """Return reflection under both its names: the messages of v1 are those of v1alpha."""
        servicer = ReflectionServicer(self._reflected)

        async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            answers: Any = servicer.ServerReflectionInfo(_prompt(requests), context)
            async for one in answers:
                yield one

        return {
            name: {
                "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                    self._calls.reflection(answer, f"{name}/ServerReflectionInfo"),
                    reflection_pb2.ServerReflectionRequest.FromString,
                    reflection_pb2.ServerReflectionResponse.SerializeToString,
                )
            }
            for name in _REFLECTION
        }


async def _prompt(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield requests until there is none for a while: what has come of one that never ends is kept as long."""
    while True:
        try:
            async with asyncio.timeout(BEGINS_WITHIN):
                request = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            return
        yield request
