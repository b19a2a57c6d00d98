"""Calls with one request and one answer: received, worked on, and answered in one step.

grpcio sends the metadata that an answer begins with by itself, and waits until core has taken it before the handler
goes on; then it sends the answer. Each step is a way to core and back through the event loop, which is most of what a
small call costs. Here what a handler says goes together: metadata, answer and status are one batch, in the order in
which they would have gone alone.

The rules are grpcio's own (`_cython/_cygrpc/aio/server.pyx.pxi`): that the caller is gone is listened for before the
handler begins; it cancels the handler, but not what is being sent, which core tells the end of anyhow; and nothing is
asked of core once the server is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from taskd.errors import RateLimited
from taskd.rpc.status import TRAILER, code_of, status_of
from taskd.runtime.supervisor import Supervisor

logger = logging.getLogger("taskd.grpc")

Metadata = Sequence[tuple[str, str | bytes]]
Enter = Callable[[str], Awaitable[Callable[[], None]]]
"""Waits until a connection may send a request; returns what is to be called when it has come. See `Peers.enter`."""

_CORE: Any = cygrpc


class Aborted(Exception):
    """The handler has said what the call ends with."""


class Single:
    """One call, and what its handler is given as its context: the part of grpcio's that there is a use for.

    Args:
        state: grpcio's, of a call that has begun.
        loop: in which it is answered.
        stopped: says whether core must not be asked for anything any more.
    """

    def __init__(self, state: Any, loop: asyncio.AbstractEventLoop, stopped: Callable[[], bool]) -> None:
        self._state = state
        self._loop = loop
        self._stopped = stopped
        self._context = _CORE._ServicerContext(state, None, None, loop)
        self._peer: str = self._context.peer()
        self._task: asyncio.Task[None] | None = None
        self._sending = False
        self._initial: Metadata = ()
        self._trailing: Metadata = ()
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._on_end: list[Callable[[Any], None]] = []

    def spawn(self, handler: Any, enter: Enter, supervisor: Supervisor) -> None:
        """Begin to answer it by a handler of one request and one answer.

        Raises:
            Unavailable: all has been stopped.
        """
        # Its first step is later, so that this listens when the handler begins.
        self._task = supervisor.spawn(self._run(handler, enter), "grpc call")
        self._listen()

    # What handlers are given.

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        found: float | None = self._context.time_remaining()
        return found

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it when the answer is taken, or has nobody to go to."""
        self._on_end.append(callback)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Say what the answer begins with."""
        self._initial = tuple(metadata)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailing = tuple(metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with this status: raises, and the handler must let it pass."""
        self._code, self._details, self._trailing = code, details, trailing_metadata
        raise Aborted

    # How it does it.

    def _listen(self) -> None:
        """Have the handler cancelled when its caller is gone.

        Without a task: what waits for core is stepped by hand, once now and once when core has told.
        """
        closed = _CORE.ReceiveCloseOnServerOperation(0)
        waiting = _CORE.execute_batch(self._state, (closed,), self._loop)

        def told(_: object) -> None:
            with contextlib.suppress(StopIteration, grpc.aio.BaseError):
                waiting.send(None)
            if closed.cancelled() and self._task is not None and not self._sending:
                self._task.cancel()

        with contextlib.suppress(grpc.aio.BaseError):
            waiting.send(None).add_done_callback(told)

    async def _run(self, handler: Any, enter: Enter) -> None:
        try:
            await self._send(await self._answer(handler, enter))
        except grpc.aio.BaseError:
            # Core's, of a batch that failed: there is nobody to answer.
            logger.debug("a call was over before it was answered")
        finally:
            # Or this and its task would hold each other, and core's call with them.
            self._task = None
            for callback in self._on_end:
                callback(self)

    async def _answer(self, handler: Any, enter: Enter) -> bytes:
        """Return the answer, of no bytes to who is refused."""
        arrived: Callable[[], None] | None = None
        try:
            arrived = await enter(self._peer)
            request = await _CORE._receive_message(self._state, self._loop)
            if request is None:
                # Or the caller has gone, or sends what it may not: then core has said so, and takes nothing more.
                await self.abort(grpc.StatusCode.INTERNAL, "the call ends before its message does")
            arrived()
            read, write = handler.request_deserializer, handler.response_serializer
            answer = await handler.unary_unary(request if read is None else read(request), self)
            body: bytes = answer if write is None else write(answer)
            return body
        except RateLimited as error:
            status = status_of(error)
            self._code, self._details = code_of(error), status.message
            self._trailing = ((TRAILER, status.SerializeToString()),)
        except Aborted:
            pass
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            logger.error("a call failed", exc_info=error)
            self._code, self._details = grpc.StatusCode.UNKNOWN, "something went wrong"
        finally:
            if arrived is not None:
                arrived()
        return b""

    async def _send(self, body: bytes) -> None:
        if self._stopped():
            return
        self._sending = True
        begin = _CORE.SendInitialMetadataOperation(self._initial, 0)
        end = _CORE.SendStatusFromServerOperation(self._trailing, self._code.value[0], self._details, 0)
        # A call that failed has no answer.
        is_good = self._code is grpc.StatusCode.OK
        parts = (begin, _CORE.SendMessageOperation(body, 0), end) if is_good else (begin, end)
        await _CORE.execute_batch(self._state, parts, self._loop)
