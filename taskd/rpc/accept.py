"""How calls are accepted: grpcio's server, with an accept loop that a caller can't end, and that knows who calls.

Its own loop decodes the path of each call that no registered method takes, and ends with the first one that is no
UTF-8: the port closes for everybody. And it begins to receive whatever anybody begins to send. Here all methods are
registered, so core itself compares their paths, byte by byte; and calls never come to that loop: they are answered from
where they are received, after `Peers` has given them a turn.

grpcio's parts that this stands on are not public, so it looks whether they are there and take what they are given. With
a release that has others no server starts: when grpcio's own loop ends, what it has asked core for is let go while core
still writes into it, and one caller could end the process, or worse.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from taskd.errors import StartError
from taskd.rpc.calls import Context, Handler
from taskd.rpc.peers import Peers, TooMuchUnread
from taskd.rpc.single import Single
from taskd.runtime.supervisor import Supervisor

KNOWN = "grpcio 1.84 or 1.85"
"""Releases that have been tried."""

_CORE: Any = cygrpc
_BASE: Any = getattr(_CORE, "AioServer", object)
_PARAMETERS = {
    "_handle_rpc": (
        "method_name", "method_resolver", "interceptors", "rpc_state", "loop", "concurrency_exceeded"
    ),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
    "_receive_message": ("grpc_call_wrapper", "loop"),
    "execute_batch": ("grpc_call_wrapper", "operations", "loop"),
}  # fmt: skip
"""What is called with which arguments."""

_CALLABLE = (
    "_MethodResolver", "_ServicerContext", "ReceiveCloseOnServerOperation", "SendInitialMetadataOperation",
    "SendMessageOperation", "SendStatusFromServerOperation",
)  # fmt: skip
_METHODS = ("_request_call", "_request_registered_call")


def can_accept() -> bool:
    """Return whether this grpcio is built as this module takes it to be."""
    try:
        found = {name: tuple(inspect.signature(getattr(_CORE, name)).parameters) for name in _PARAMETERS}
        parts = [getattr(_CORE, name) for name in _CALLABLE] + [getattr(_CORE.AioServer, name) for name in _METHODS]
    except (AttributeError, TypeError, ValueError):
        return False
    return found == _PARAMETERS and all(map(callable, parts))


def make_server(
    services: Mapping[str, Mapping[str, Handler]],
    others: grpc.GenericRpcHandler,
    options: Mapping[str, Any],
    peers: Peers,
    supervisor: Supervisor,
) -> grpc.aio.Server:
    """Return a server that has not started.

    Args:
        services: the handlers of methods by their names, by the full names of their services. Those with one request
            are coroutines; those with a stream of requests limit the time that one may take.
        others: has a handler for whatever is none of these.
        options: see `grpc.aio.server`.
        peers: says who may send.
        supervisor: owns the calls.

    Raises:
        StartError: this grpcio is not built as it must be.
    """
    if not can_accept():
        raise StartError(f"grpcio {grpc.__version__} is unknown here: install {KNOWN}, or do without (TASKD_GRPC=off)")
    given = list(options.items())
    server: Any = grpc.aio.server(options=given)
    paths = {
        f"/{service}/{name}".encode(): handler
        for service, methods in services.items()
        for name, handler in methods.items()
    }
    # As grpc.aio.Server makes its own, which is let go without having been started.
    server._server = Accepting(asyncio.get_running_loop(), paths, others, given, peers, supervisor)
    server.add_generic_rpc_handlers((others,))
    for service, methods in services.items():
        server.add_registered_method_handlers(service, dict(methods))
    found: grpc.aio.Server = server
    return found


class Accepting(_BASE):  # type: ignore[misc]
    """A server that answers its calls past grpcio's loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        paths: Mapping[bytes, Handler],
        others: grpc.GenericRpcHandler,
        options: list[tuple[str, Any]],
        peers: Peers,
        supervisor: Supervisor,
    ) -> None:
        super().__init__(loop, None, (), (), tuple(options), None)
        self._own_loop = loop
        self._paths = paths
        self._others = _CORE._MethodResolver([others], {})
        self._peers = peers
        self._supervisor = supervisor
        self._is_stopped = False

    async def shutdown(self, grace: float | None) -> None:
        """End all calls, after some seconds at the most; from then on core must not be asked for anything."""
        await super().shutdown(grace)
        self._is_stopped = True

    async def _request_call(self) -> Any:
        """Answer calls of what does not exist; return none. Ends with core's error when the server stops."""
        while True:
            state = await super()._request_call()
            # The path stays unread, and so does what is sent.
            self._spawn(_CORE._handle_rpc("other", self._others, (), state, self._own_loop, False), state)

    async def _request_registered_call(self, path: bytes) -> Any:
        """Answer calls of a method; return none. Ends as above."""
        handler: Any = self._paths[path]
        name, is_single = path.decode(), not (handler.request_streaming or handler.response_streaming)
        while True:
            state = await super()._request_registered_call(path)
            if is_single:
                call = Single(state, self._own_loop, lambda: self._is_stopped)
                call.spawn(handler, self._peers.enter, self._supervisor)
            else:
                self._spawn(self._run(name, handler, state), state)

    def _spawn(self, call: Coroutine[Any, Any, None], state: Any) -> None:
        # It also has the call cancelled when its caller goes away.
        whole = _CORE._schedule_rpc_coro(call, state, self._own_loop, "taskd")
        self._supervisor.spawn(whole, "grpc call")

    async def _run(self, name: str, handler: Handler, state: Any) -> None:
        peer = _CORE._ServicerContext(state, None, None, self._own_loop).peer()
        arrived: Callable[[], None] | None = None
        try:
            arrived = await self._peers.enter(peer)
            noting = _noting(handler, arrived)
        except TooMuchUnread as error:
            noting = _refusing(error)
        try:
            resolver = _CORE._MethodResolver([], {name: noting})
            await _CORE._handle_rpc(name, resolver, (), state, self._own_loop, False)
        finally:
            if arrived is not None:
                arrived()


def _noting(handler: Any, arrived: Callable[[], None]) -> Handler:
    """Return a handler that takes note when the request is there; one that sees to a stream of them sees to that."""
    if handler.request_streaming:
        arrived()
        found: Handler = handler
        return found

    async def run(request: Any, context: Context) -> Any:
        arrived()
        return await handler.unary_stream(request, context)

    return grpc.unary_stream_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)


def _refusing(error: TooMuchUnread) -> Handler:
    async def refuse(requests: object, context: Context) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    return grpc.stream_stream_rpc_method_handler(refuse)
