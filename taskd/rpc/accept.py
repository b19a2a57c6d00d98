"""How calls are accepted: grpcio's server, whose accept loop can't be ended by a caller.

That loop decodes the path of each call that no registered method takes, and ends with the first one that is no UTF-8:
the port closes for everybody. Here all methods are registered, so core itself compares their paths, byte by byte; and
what it finds no method for never comes to the loop: it is answered from where it is received, whatever its path is.

grpcio's parts that this stands on are not public, so it looks whether they are there and take what they are given. If a
release has others, its own loop serves, and the server's guard is what is left.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from taskd.rpc.calls import Handler

logger = logging.getLogger("taskd.grpc")

_CORE: Any = cygrpc
_PARAMETERS = {
    "_handle_rpc": (
        "method_name", "method_resolver", "interceptors", "rpc_state", "loop", "concurrency_exceeded"
    ),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
}  # fmt: skip
"""What is called with which arguments."""


def can_accept() -> bool:
    """Return whether this grpcio is built as this module takes it to be."""
    try:
        found = {name: tuple(inspect.signature(getattr(_CORE, name)).parameters) for name in _PARAMETERS}
        return found == _PARAMETERS and callable(_CORE._MethodResolver) and callable(_CORE.AioServer._request_call)
    except (AttributeError, TypeError, ValueError):
        return False


def make_server(
    services: Mapping[str, Mapping[str, Handler]], others: grpc.GenericRpcHandler, options: Mapping[str, Any]
) -> grpc.aio.Server:
    """Return a server that has not started.

    Args:
        services: the handlers of methods by their names, by the full names of their services.
        others: has a handler for whatever is none of these.
        options: see `grpc.aio.server`.
    """
    given = list(options.items())
    server: Any = grpc.aio.server(options=given)
    if can_accept():
        # As grpc.aio.Server makes its own, which is let go without having been started.
        server._server = _accepting()(asyncio.get_running_loop(), others, given)
    else:
        logger.warning("grpcio %s accepts calls in a way of its own: a caller can disturb it", grpc.__version__)
    server.add_generic_rpc_handlers((others,))
    for name, methods in services.items():
        server.add_registered_method_handlers(name, dict(methods))
    found: grpc.aio.Server = server
    return found


def _accepting() -> Any:
    """Return the class of servers; made when it is wanted: a grpcio that is built otherwise may have no such base."""

    class Accepting(_CORE.AioServer):  # type: ignore[misc]
        """A server that answers what no registered method takes by itself."""

        def __init__(
            self, loop: asyncio.AbstractEventLoop, others: grpc.GenericRpcHandler, options: list[tuple[str, Any]]
        ) -> None:
            super().__init__(loop, None, (), (), tuple(options), None)
            self._own_loop = loop
            self._others = _CORE._MethodResolver([others], {})
            self._answering: set[asyncio.Task[None]] = set()

        async def _request_call(self) -> Any:
            """Answer such calls; return none. Ends with the error that core ends it with when the server stops."""
            while True:
                state = await super()._request_call()
                # The path stays unread. Core has one request of this kind at a time, and so has the loop it replaces.
                call = _CORE._handle_rpc("other", self._others, (), state, self._own_loop, False)
                whole = _CORE._schedule_rpc_coro(call, state, self._own_loop, "other")
                task = self._own_loop.create_task(whole, name="other calls")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
                del state, call, whole

    return Accepting
