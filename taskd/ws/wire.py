"""A WebSocket on a transport that an HTTP connection has given up: frames in, messages out.

The protocol is that of `websockets`, which does no I/O; this is its glue to asyncio, and knows nothing of
tasks. It has no task and no timer of its own. What it sends goes to the transport at once as long as the other side
takes it; the rest waits here, as what all who are sent it share: the transport would copy it for each. How far the
other side is behind is the size of both in bytes. Of that, and of messages that have not come whole, it tells its
owner, who bounds the sum over all.

Its end has two steps, each told once: `ending`, when the closing handshake has begun and nothing may be sent any more,
and `lost`, when the transport is gone. Whoever owns the wire bounds the time between them, and ends it by `abort`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from taskd.runtime.descriptors import reset
from taskd.ws.frames import PING, close_reason
from taskd.ws.protocol import SocketProtocol

BEHIND = 1024 * 1024
"""Bytes that a consumer may be behind before it is closed as slow."""

HIGH_WATER = 256 * 1024
"""Bytes that wait above which a sender that can wait does."""

PIECE = 32 * 1024
"""Bytes that are given to the transport at once; it copies what the other side does not take."""


class Wire(asyncio.Protocol):
    """One WebSocket; subclasses say what happens with messages.

    Args:
        transport: what the head came in by; this becomes its protocol.
        protocol: has sent, or is about to send, its 101 answer; `data_to_send` still holds it.
        behind: bytes; see `BEHIND`.
    """

    def __init__(self, transport: asyncio.Transport, protocol: SocketProtocol, *, behind: int = BEHIND) -> None:
        self.transport = transport
        self.cause = "client"
        """Why it ended, in few words that are the same each time; right once `ending` was called."""
        self._protocol = protocol
        self._behind = behind
        self._silent = False
        self._gone = False
        self._opcode: Opcode | None = None
        self._message = bytearray()
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        """Bytes in the queue."""
        self._paused = False
        """The transport has some that the other side has not taken."""
        self._ends = False
        """Nothing comes behind the queue."""
        self._unsent = 0
        self._unread = 0
        """Of which the owner was told last, as the one before."""
        self._drained: asyncio.Future[None] | None = None

    # What subclasses are told.

    def text(self, message: str) -> None:
        """A text message came in."""

    def binary(self, message: bytes) -> None:
        """A binary message came in."""

    def pong(self) -> None:
        """A pong came in."""

    def unsent(self, size: int) -> None:
        """So many bytes wait for the other side to take them; 0: none any more."""

    def unread(self, size: int) -> None:
        """So many bytes of a message are here, and it is not whole; 0: none any more."""

    def ending(self) -> None:
        """Nothing can be sent from now on. Called once, and before `lost`."""

    def lost(self) -> None:
        """The transport is gone. Called once."""

    # What owners do.

    @property
    def open(self) -> bool:
        """Whether messages may be sent."""
        return not self._silent and not self.transport.is_closing()

    @property
    def behind(self) -> int:
        """Bytes that were sent and are still in this process."""
        return self._queued + self.transport.get_write_buffer_size()

    def begin(self, tail: bytes = b"") -> None:
        """Take over the transport, send the 101, and read what came behind the head."""
        self.transport.set_protocol(self)
        # So that this is told when nothing waits any more. Not 0: with TLS, asyncio then pauses when nothing does, for
        # good.
        self.transport.set_write_buffer_limits(high=1, low=0)
        self._flush()
        # The HTTP connection may have paused it, to wait for answers to go out.
        self.transport.resume_reading()
        if tail:
            self.data_received(tail)

    def write(self, frames: bytes) -> bool:
        """Send complete data frames, or close when the other side is too far behind; nothing once it ends.

        Returns whether they were sent.

        Being behind is looked at before the frames are added, so that a frame of any size can be sent to a client that
        keeps up.
        """
        if self._silent or self.transport.is_closing():
            return False
        if not self._unsent and not self._paused and len(frames) <= PIECE:
            # As most are: nothing waits, which was looked at when the frames before were sent. One event goes to
            # thousands of sockets by this way, so each look that says what is known is left out.
            self.transport.write(frames)
            if self.transport.get_write_buffer_size():
                self._weigh()
            return True
        if self.behind > self._behind:
            self.close(4002, "slow consumer")
            return False
        self._send(frames)
        return True

    def ping(self) -> None:
        """Send a ping; a live peer answers with a pong (RFC 6455 5.5.2)."""
        if self.open:
            self._send(PING)

    def close(self, code: int, reason: str, cause: str | None = None) -> None:
        """Begin the closing handshake (RFC 6455 7.1.2). Safe twice, and when the other side began it.

        Args:
            code: as RFC 6455 7.4 allows a server to send.
            reason: for people; cut to 123 bytes.
            cause: what `self.cause` is to be; the reason if left out.
        """
        if self._protocol.state is OPEN:
            self.cause = cause or reason
            self._protocol.send_close(code, close_reason(reason))
            self._flush()

    def fail(self, code: int, reason: str) -> None:
        """End the connection for a fault of the other side (RFC 6455 7.1.7): nothing that it sends is read any more."""
        if self._protocol.state is OPEN:
            self.cause = "bad message"
            self._protocol.fail(code, close_reason(reason))
            self._flush()

    def drop(self) -> None:
        """Drop a consumer that holds up too much, as `close` would, but at once."""
        # First, so that what is dropped counts no more when the close is told of.
        self.abort()
        self.close(4002, "slow consumer")

    def abort(self) -> None:
        """Drop the transport, without a word and without what is still to be taken."""
        self._queue.clear()
        self._queued = 0
        reset(self.transport)

    async def drained(self) -> None:
        """Wait while more than `HIGH_WATER` bytes are to be taken: until all are, or the connection is lost."""
        while self.behind > HIGH_WATER and not self._gone:
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    # What the transport does.

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._process()

    def eof_received(self) -> bool:
        self._protocol.receive_eof()
        self._process()
        self._ends = True
        # Without it, the transport closes itself once its buffer is flushed.
        return bool(self._queue)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._protocol.state is OPEN:
            self.cause = "lost"
        self._protocol.receive_eof()
        self._protocol.events_received()
        self._protocol.data_to_send()
        self._queue.clear()
        self._queued = 0
        self.resume_writing()
        self._end()
        self.lost()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pass_on()
        self._weigh()
        if self._paused:
            return
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    # How frames become messages.

    def _process(self) -> None:
        # The protocol has read all of the data. As long as it stays open, pongs go out before the answers to messages.
        # But its close frame must wait: the answers to messages that came before the client's own belong before it.
        if self._protocol.state is OPEN:
            self._flush()
        for frame in self._protocol.events_received():
            if self._silent:
                break
            if isinstance(frame, Frame):
                self._frame(frame)
        self._flush()
        size = 0 if self._silent else len(self._message) + self._protocol.buffered
        if size or self._unread:
            self._unread = size
            self.unread(size)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            # The protocol bounds the sum; a bytearray makes fragments without content cost nothing.
            self._message += frame.data
            if frame.fin:
                message, self._message = bytes(self._message), bytearray()
                self._deliver(message)
        elif frame.opcode is Opcode.PONG:
            self.pong()

    def _deliver(self, message: bytes) -> None:
        if self._opcode is Opcode.BINARY:
            self.binary(message)
        else:
            self.text(message.decode())

    def _flush(self) -> None:
        if not self._gone:
            for data in self._protocol.data_to_send():
                if data:
                    self._send(data)
                else:
                    self._ends = True
                    self._pass_on()
        if self._protocol.state is not OPEN:
            self._end()
        if self.behind > self._behind and not self._gone:
            self._too_far_behind()

    def _send(self, data: bytes) -> None:
        if not self._paused and len(data) <= PIECE:
            self.transport.write(data)
        else:
            self._queue.append(memoryview(data))
            self._queued += len(data)
            self._pass_on()
        self._weigh()

    def _pass_on(self) -> None:
        """Give the transport of the queue what the other side takes, and its end."""
        while self._queue and not self._paused:
            piece = self._queue.popleft()
            if len(piece) > PIECE:
                self._queue.appendleft(piece[PIECE:])
                piece = piece[:PIECE]
            self._queued -= len(piece)
            self.transport.write(piece)
        if not self._ends or self._queue or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            # Closing at once could reset the connection and take the close frame with it, when there is data that
            # nobody reads any more (RFC 6455 7.1.1, RFC 9112 9.6).
            self.transport.write_eof()
        else:
            self.transport.close()

    def _weigh(self) -> None:
        size = self.behind
        if size or self._unsent:
            self._unsent = size
            self.unsent(size)

    def _too_far_behind(self) -> None:
        """Answers and pongs pile up, because the other side asks and does not read."""
        if self._protocol.state is OPEN:
            self.close(4002, "slow consumer")
        elif self.behind > 2 * self._behind:
            self.abort()

    def _end(self) -> None:
        if not self._silent:
            self._silent = True
            if self._protocol.parser_exc is not None and self.cause == "client" and not self._gone:
                self.cause = "lost" if isinstance(self._protocol.parser_exc, EOFError) else "bad message"
            self._message = bytearray()
            self.ending()
