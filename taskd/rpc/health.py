"""`grpc.health.v1`: whether each service is fit to be called, which is whether the process is ready.

Not grpc's own servicer: that one writes to its watchers under a lock which a change of status needs too, so one watcher
that does not read would keep everybody from being answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taskd.rpc.calls import Handler
from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Health

MOST_WATCHES, MOST_OF_ONE = 1000, 8
"""Watches at once, of all and of one connection: whoever asks needs no token."""

LOOK_EVERY = 1.0
"""Seconds between looks on behalf of those who watch."""

Answer = health_pb2.HealthCheckResponse
_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class HealthCalls(health_pb2_grpc.HealthServicer):
    """The health of the process, for `""` and each service. `Check` looks, `Watch` is told within a second.

    Args:
        health: of the process's parts.
        services: full names.
        supervisor: owns the looks.
    """

    def __init__(self, health: Health, services: Sequence[str], supervisor: Supervisor) -> None:
        self._health = health
        self._services = frozenset(("", *services))
        self._told = False
        self._watches: Counter[str] = Counter()
        """Of each connection."""
        self._change = asyncio.Event()
        self._service = Periodic("grpc health", self.run_once, supervisor, Backoff(0.1, 1.0))

    def start(self) -> None:
        """Begin to look."""
        self._service.start()

    async def stop(self) -> None:
        """Look no more, and say what is so now. Safe twice, and before `start`."""
        await self._service.stop()
        self.look()

    async def run_once(self) -> float:
        """Tell those who watch; return the seconds until the next look."""
        self.look()
        return LOOK_EVERY

    def look(self) -> bool:
        """Return whether the process is ready, and tell those who watch when that has changed."""
        ready = all(part.ok for part in self._health.ready().values())
        if ready is not self._told:
            self._told = ready
            self._change.set()
            self._change = asyncio.Event()
        return ready

    def handlers(self) -> dict[str, dict[str, Handler]]:
        """Return the handlers of its methods."""
        kinds = {"Check": grpc.unary_unary_rpc_method_handler, "Watch": grpc.unary_stream_rpc_method_handler}
        read, write = health_pb2.HealthCheckRequest.FromString, Answer.SerializeToString
        return {_NAME: {name: make(getattr(self, name), read, write) for name, make in kinds.items()}}

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Answer:
        """Answer with how things are now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return Answer(status=Answer.SERVING if self.look() else Answer.NOT_SERVING)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Say how things are now, and whenever that changes."""
        peer = context.peer()
        if self._watches.total() >= MOST_WATCHES or self._watches[peer] >= MOST_OF_ONE:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches: ask by Check")
        self._watches[peer] += 1
        try:
            await self._tell(request, context)
        finally:
            self._watches[peer] -= 1
            if not self._watches[peer]:
                del self._watches[peer]

    async def _tell(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        if request.service not in self._services:
            await context.write(Answer(status=Answer.SERVICE_UNKNOWN))
            # As the protocol has it: it may come up later; here it never does.
            await asyncio.Event().wait()
        self.look()
        while True:
            change, ready = self._change, self._told
            await context.write(Answer(status=Answer.SERVING if ready else Answer.NOT_SERVING))
            if ready is self._told:
                await change.wait()
