"""One HTTP connection: the only glue between `http1` and asyncio.

Bytes go into the parser; a request that is complete becomes a task that asks the application for the answer; the
answer goes out; only then is the next request looked at, so answers keep the order of pipelined requests. What comes
in meanwhile is held back, at most `READ_AHEAD` and one read more, and reading goes on only when the parser has nothing
left to say: a client that sends faster than it is answered waits. A connection has one deadline at a time.

What is held for a client has bounds: on each request by `Limits`; on what waits to be sent by `PIECE`, since a large
answer goes out piece by piece as the client takes it; and on the sum of all connections by the server's budgets. Who
has to give way to others is dropped.

When the client is gone, a stream ends. Any other request goes on to its end: a change that has begun is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from taskd import log
from taskd.clock import monotonic
from taskd.http1.encode import CONTINUE, LAST_CHUNK
from taskd.http1.head import Head
from taskd.http1.limits import BadRequest
from taskd.http1.parser import Body, End, NeedData, Parser
from taskd.metrics.catalog import OTHER, UNMATCHED
from taskd.runtime.descriptors import reset
from taskd.web.answers import PIECE, StreamSink, first_piece, stream_head, write_pieces
from taskd.web.host import LEAST, READ_AHEAD, READ_SIZE, Host, Phase
from taskd.web.message import Request, Response, Stream
from taskd.web.middleware import known_method
from taskd.web.problem import of_refusal
from taskd.web.upgrade import Upgrade, Upgrader

logger = logging.getLogger("taskd.http")


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: Host[Any], arrived: Callable[[], None]) -> None:
        self.phase = Phase.IDLE
        self.deadline: float | None = None
        """When `expire` is due, by the server's clock."""
        self._server = server
        self._arrived = arrived
        self._parser = Parser(server.limits, server.memo)
        self._transport: asyncio.Transport
        self._peer = ""
        self._request: Request | None = None
        self._body: bytes | bytearray = bytearray()
        self._held = bytearray()
        """What came in while an answer was due, and the parser has not seen."""
        self._paused = self._ended = False
        """Nothing is read for now; the client sends nothing more."""
        self._counted = 0
        """Bytes of it that the server has been told of."""
        self._unsent = 0
        """Bytes that waited to be sent when the deadline was set."""
        self._served = False  # not once so far
        self._answering: asyncio.Task[None] | None = None
        self._streaming = False
        self._writable: asyncio.Future[None] | None = None
        self._lost = False

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        # So that this is told of all that waits. Not 0: with TLS, asyncio then pauses when nothing does, for good.
        transport.set_write_buffer_limits(high=1, low=0)
        if hasattr(transport, "max_size"):
            # asyncio's, though not documented: its 256 KiB a read take 22 µs, these 2, and leave others waiting less.
            transport.max_size = READ_SIZE
        self._arrived()
        self._server.opened(self)
        self._enter(Phase.IDLE)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            if self._served and self._writable is None and (again := self._server.again(self, data)) is not None:
                write_pieces(self._transport, again)
                if self._writable is not None:
                    self._enter(Phase.ANSWER)
                    self._answering = self._server.supervisor.spawn(self._given_again(), "http request")
                return
            if whole := self._parser.whole(data):
                self._request, self._body = Request(whole[0], b"", self._peer), whole[1]
                try:
                    self._dispatch()
                except BadRequest as error:
                    self._refuse(error.status, error.message)
                return
            self._enter(Phase.HEAD)
        if self.phase is Phase.ANSWER:
            self._held += data
            if len(self._held) > READ_AHEAD:
                self._paused = True
                self._transport.pause_reading()
            self._weigh()
        elif self.phase is not Phase.LINGER and self.phase is not Phase.CLOSING:
            self._parser.feed(data)
            self._advance()

    def eof_received(self) -> bool:
        """The client may have closed its half only, and still want its answers; a stream's client has gone."""
        if self.phase is Phase.LINGER:
            return False
        self._ended = True
        if self.phase is Phase.ANSWER:
            self.end_stream()
        else:
            self._advance()
        return self.phase is Phase.ANSWER

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.deadline = None
        self.resume_writing()
        if self._streaming and self._answering is not None:
            self._answering.cancel()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # What the server tells.

    def expire(self) -> None:
        """The deadline has passed."""
        if self.phase in (Phase.HEAD, Phase.BODY):
            self._refuse(408, f"the request's {'head' if self.phase is Phase.HEAD else 'body'} took too long")
        elif self.phase is Phase.IDLE:
            self._close()
        elif self.phase is not Phase.LINGER and self._transport.get_write_buffer_size() + LEAST <= self._unsent:
            # It is slow, but it reads.
            self._set_write_deadline()
        else:
            reset(self._transport)

    def drain(self) -> None:
        """Take no further request: close now if idle, else after the answer. Streams end."""
        if self.phase is Phase.IDLE:
            self._close()
        else:
            self.end_stream()

    def end_stream(self) -> None:
        """End a stream, if that is what is being answered; its client comes back."""
        if self._streaming and self._answering is not None:
            self._answering.cancel()

    def drop(self) -> None:
        """Drop the client, to make room for others; a change that has begun is made."""
        self._forget()
        reset(self._transport)

    def abort(self) -> None:
        """Drop the connection, and what is being done for it."""
        if self._answering is not None:
            self._answering.cancel()
        self._transport.abort()

    # Reading.

    def _enter(self, phase: Phase) -> None:
        seconds = self._server.times.of(phase)
        if phase is Phase.IDLE:
            (self._server.idle if self._served else self._server.fresh)[self] = None
        elif self.phase is Phase.IDLE:
            (self._server.idle if self._served else self._server.fresh).pop(self, None)
        self.phase = phase
        self.deadline = None if seconds is None else self._server.clock() + seconds

    def _close(self) -> None:
        """Close once all is sent; but not wait for ever for a client that takes nothing."""
        self._enter(Phase.CLOSING)
        self._set_write_deadline()
        self._transport.close()

    def _set_write_deadline(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._server.clock() + self._server.times.write

    def _advance(self) -> None:
        try:
            while self.phase is not Phase.ANSWER and not self._transport.is_closing():
                event = self._parser.next_event()
                if isinstance(event, Head):
                    self._head(event)
                elif isinstance(event, Body):
                    self._body += event.data
                elif isinstance(event, End):
                    self._dispatch()
                elif not isinstance(event, NeedData):
                    self._close()
                elif not self._feed_held():
                    break
        except BadRequest as error:
            self._refuse(error.status, error.message)
        self._weigh()

    def _weigh(self) -> None:
        """Tell what is held of requests that have not come whole."""
        size = self._parser.buffered + len(self._body) + len(self._held)
        if size or self._counted:
            self._counted = size
            for other in self._server.coming.hold(self, size):
                other.drop()

    def _forget(self) -> None:
        """Hold nothing any more of what came in."""
        self._parser = Parser(self._server.limits, self._server.memo)
        self._body, self._held = bytearray(), bytearray()
        self._server.coming.hold(self, 0)

    def _feed_held(self) -> bool:
        """Give the parser what it has not seen; return whether there was anything."""
        if self._held:
            if self.phase is Phase.IDLE:
                # A client that only begins another request has the head's time.
                self._enter(Phase.HEAD)
            self._parser.feed(bytes(self._held))
            self._held = bytearray()
            return True
        if self._ended:
            # From here on it says Closed, or that the request is cut off.
            self._parser.feed_eof()
            return True
        self._paused = False
        self._transport.resume_reading()
        return False

    def _head(self, head: Head) -> None:
        upgrader = self._server.upgrader
        if upgrader is not None and head.upgrade == b"websocket" and head.method == "GET" and upgrader.wants(head):
            self._enter(Phase.ANSWER)
            self._answering = self._server.supervisor.spawn(self._upgrade(upgrader, head), "http upgrade")
            return
        self._request = Request(head, b"", self._peer)
        self._body = bytearray()
        self._enter(Phase.BODY)
        if head.expect_continue:
            self._transport.write(CONTINUE)

    async def _upgrade(self, upgrader: Upgrader, head: Head) -> None:
        """Hand the transport to another protocol. What came in meanwhile goes along."""
        upgrade: Upgrade | None = None
        try:
            upgrade = await upgrader.admit(head, self._peer)
        except Exception:
            logger.exception("a request for an upgrade could not be looked at")
        self._answering = None
        if upgrade is None or self._lost or self._ended:
            # Who has closed its half can't close a WebSocket in order: it is gone.
            self._transport.abort()
            return
        self.deadline = None
        self._server.closed(self)
        self._transport.resume_reading()
        upgrade(self._parser.trailing() + bytes(self._held), self._transport)

    def _dispatch(self) -> None:
        assert self._request is not None
        self._server.begin(len(self._body))
        self._request.body = bytes(self._body)
        self._request.begun = monotonic()
        self._body = bytearray()
        # What is behind it counts from now on.
        self._server.coming.hold(self, 0)
        self._enter(Phase.ANSWER)
        self._answering = self._server.supervisor.spawn(self._answer(self._request), "http request")

    # Answering.

    async def _answer(self, request: Request) -> None:
        keep_alive = False
        try:
            answer = await self._server.handle(request)
            keep_alive = request.head.keep_alive and not self._server.draining
            if isinstance(answer, Stream):
                keep_alive = await self._stream(request.head, answer, keep_alive)
            else:
                self._write_response(request.head, answer, keep_alive)
                if keep_alive:
                    self._server.keep(request, answer)
                body = b"" if request.head.method == "HEAD" else answer.body
                if len(body) > PIECE or self._writable is not None:
                    await self._write_rest(body)
        except Exception:
            # The application answers its own errors; this one is in sending, and ends this connection only.
            logger.exception("an answer could not be sent")
            keep_alive = False
        finally:
            self._server.end(len(request.body))
            self._answering = None
            self._request = None
            self._streaming = False
            self._next(keep_alive)

    def _next(self, keep_alive: bool) -> None:
        if self._lost or self._transport.is_closing():
            return
        if keep_alive:
            self._served = True
            self._enter(Phase.IDLE)
            if self._held or self._ended or self._paused or self._parser.buffered:
                self._advance()
        if not keep_alive or (self.phase is Phase.IDLE and self._server.draining):
            self._close()
        elif self.phase is Phase.IDLE and self._parser.buffered:
            # The next request has begun: what comes is the rest of it, and none of its own.
            self._enter(Phase.HEAD)

    async def _given_again(self) -> None:
        """Wait until the client has taken such an answer, which counts meanwhile as any other."""
        await self._drained()
        self._answering = None
        self._next(keep_alive=True)

    def _write_response(self, head: Head | None, answer: Response, keep_alive: bool) -> None:
        if not self._lost:
            self._transport.write(first_piece(head, answer, keep_alive=keep_alive))

    async def _write_rest(self, body: bytes) -> None:
        """Send what is behind the first piece, each piece once the client has taken the one before."""
        rest = memoryview(body)[PIECE:]
        await self._drained(len(rest))
        while rest and not self._lost:
            self._transport.write(rest[:PIECE])
            rest = rest[PIECE:]
            # A client that takes all as fast as it comes is not to keep the others waiting.
            await asyncio.sleep(0)
            await self._drained(len(rest))

    async def _stream(self, head: Head, answer: Stream, keep_alive: bool) -> bool:
        """Send a stream until it ends; return whether the connection can go on."""
        if self._lost:
            return False
        chunked = head.version == (1, 1)
        keep_alive = keep_alive and chunked
        self._transport.write(stream_head(head, answer, keep_alive=keep_alive))
        if head.method != "HEAD":
            self._streaming = True
            try:
                await answer.run(StreamSink(self.write, chunked))
            except asyncio.CancelledError:
                # Ended by the server in order: the client sees a whole body, and comes back.
                keep_alive = False
            self._streaming = False
        if chunked and head.method != "HEAD" and not self._lost:
            self._transport.write(LAST_CHUNK)
        await self._drained()
        return keep_alive

    async def write(self, data: bytes) -> None:
        """Send bytes of a stream, and wait while the client is behind."""
        if self._lost:
            raise asyncio.CancelledError
        self._transport.write(data)
        await self._drained()

    async def _drained(self, rest: int = 0) -> None:
        """Wait until the client has taken what was sent, for as long as it may take; `rest` is still to be sent."""
        if self._writable is None or self._lost:
            return
        self._set_write_deadline()
        for other in self._server.unsent.hold(self, self._unsent + rest):
            other.drop()
        try:
            await self._writable
        finally:
            self._server.unsent.hold(self, 0)
            self.deadline = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer what can't be read, and end: nothing behind it can be trusted to be a request."""
        request = self._request
        request_id = log.request_id_of(None if request is None else request.head.get(b"x-request-id"))
        self._forget()
        answer = of_refusal(status, message, request_id)
        self._write_response(None if request is None else request.head, answer, keep_alive=False)
        method = OTHER if request is None else known_method(request.head.method)
        self._server.catalog.http_requests.labels(method, UNMATCHED, str(status)).inc()
        logger.info("refused with %d: %s", status, message, extra=log.fields(status=status, request_id=request_id))
        # RFC 9112 9.6: a close with unread data would reset the connection, and the client might lose the answer.
        if self._transport.can_write_eof() and not self._ended:
            self._transport.write_eof()
            self._enter(Phase.LINGER)
        else:
            self._close()
