"""Requests out of a byte stream, one event at a time (RFC 9112).

`Parser` knows one direction of one connection. Bytes go in with `feed`, in pieces of any size; `next_event` is then
called until it answers `NeedData`. How the bytes were cut never changes what is read, nor how it is refused:

    Head (Body)* End   Head (Body)* End   ...   Closed

Requests may follow each other without waiting (pipelining): stop calling `next_event` after `End` for as long as the
answer is not sent, and stop feeding meanwhile, since what was fed is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from taskd.http1.head import Head, HeadMemo, parse_fields
from taskd.http1.limits import BadRequest, Limits

__all__ = ["BadRequest", "Body", "Closed", "End", "Event", "Head", "HeadMemo", "Limits", "NeedData", "Parser"]


class Body(NamedTuple):
    """The next piece of the content; never empty."""

    data: bytes


class End:
    """The request is complete."""


class NeedData:
    """Nothing more can be said before more bytes are fed."""


class Closed:
    """No further request will come; what the client still sends is not read."""


Event = Head | Body | End | NeedData | Closed
_END, _NEED_DATA, _CLOSED = End(), NeedData(), Closed()

# RFC 9110 5.5, RFC 9112 2.2: no control byte but HTAB, and CR and LF only as a pair. A CR at the very end may still
# get its LF.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
_PLAIN = bytes(byte for byte in range(256) if byte in b"\t\r\n" or (byte >= 0x20 and byte != 0x7F))
_METHOD_SIZE = 64
_METHOD = re.compile(rb"[^\x00-\x20\x7f]{1,%d} " % _METHOD_SIZE)
_NO_TARGET = re.compile(rb"[\x00-\x20\x7f]")
# RFC 9110 6.5.1: never in trailers. llhttp refuses those of the framing there, and obeys those of the connection.
_NO_TRAILER = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"keep-alive", b"te", b"trailer"}
)
# RFC 9112 7.1 and 7.1.1, without the "bad" whitespace that no sender may generate. 16 digits are 64 bits.
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*"
)


def _is_clean(section: bytearray) -> bool:
    """Tell whether there is nothing in a whole section that `_CONTROL` would find."""
    pairs = section.count(b"\r\n")
    return section.count(b"\r") == pairs and section.count(b"\n") == pairs and not section.translate(None, _PLAIN)


class Parser:
    """The requests of one connection.

    Args:
        limits: bounds on each request.
        memo: heads already read, shared by connections with equal `limits`; by default a small one of its own.
    """

    def __init__(self, limits: Limits, memo: HeadMemo | None = None) -> None:
        self._limits = limits
        self._memo = memo if memo is not None else HeadMemo(limits, entries=4)
        self._buffer = bytearray()
        self._eof = False
        self._scanned = 0  # bytes of the buffer known to hold no end of section and no control byte
        self._left = 0  # bytes of the body, or of the chunk, still to come
        self._size = 0  # bytes of a chunked body so far
        self._framing = 0  # bytes that chunked coding spent on the body so far
        self._keep_alive = True
        self._skipped_line = False
        self._refusal: BadRequest | None = None
        # A plain function, not a bound method: no reference cycle per connection.
        self._step: Callable[[Parser], Event | None] = Parser._read_head

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection; afterwards call `next_event` until it answers `NeedData`."""
        if self._refusal is None and self._step is not Parser._closed:
            self._buffer += data

    def feed_eof(self) -> None:
        """Take note that the client sends nothing more; afterwards call `next_event`."""
        self._eof = True

    def next_event(self) -> Event:
        """Return what the bytes so far say next.

        Returns:
            `Head`, then `Body` any number of times, then `End`, for each request; `NeedData` between any of them;
            `Closed` after a request that ends the connection, after the client's end, and after `trailing`.

        Raises:
            BadRequest: answer its status and close; every further call raises it again. If no `Head` of that
                request was given out yet, the answer is to one that nobody could read.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            event = self._step(self)
            while event is None:
                event = self._step(self)
        except BadRequest as refusal:
            self._refusal = refusal
            self._buffer.clear()
            raise
        return event

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """Return the head and the body of the request that `data` is, whole and alone, if that is seen at a glance.

        It is said at once then, as `feed` and `next_event` would have said it in three events or four; None: nothing
        is taken, and they are to be asked. Only for requests between two of which the connection is, whose fields have
        come before, which announce the length of their body, if they have one, and which ask for nothing of the
        connection: not its end, and no other protocol.
        """
        if self._buffer or self._eof or self._step is not Parser._read_head or self._refusal is not None:
            return None
        end = data.find(b"\r\n\r\n") + 4
        head = self._memo.known(data[:end]) if 4 < end <= self._limits.head else None
        if head is None or len(data) - end != (head.content_length or 0):
            return None
        if head.chunked or head.expect_continue or head.upgrade is not None or not head.keep_alive:
            return None
        self._skipped_line = False
        return head, data[end:]

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not given out."""
        return len(self._buffer)

    def trailing(self) -> bytes:
        """Return the bytes after the head just given out, and read no more: they belong to another protocol.

        Call it right after a `Head` without a body, before any further `next_event` (RFC 9110 7.8).
        """
        data = bytes(self._buffer)
        self._buffer.clear()
        self._step = Parser._closed
        return data

    def _closed(self) -> Event:
        self._buffer.clear()  # RFC 9112 9.6: nothing behind the last request is processed
        return _CLOSED

    def _wait(self) -> Event:
        if self._eof:
            raise BadRequest(400, "the connection ended within a request")  # RFC 9112 8
        return _NEED_DATA

    # Sections: a head or the trailers, up to their empty line.

    def _section(self) -> bytes | None:
        """Take the bytes up to and with the next empty line off the buffer, or return None if it is still to come."""
        buffer, limit = self._buffer, self._limits.head
        end = buffer.find(b"\r\n\r\n", max(self._scanned - 3, 0), limit)
        stop = min(len(buffer), limit) if end < 0 else end + 4
        # What comes whole, as nearly all does, needs no regular expression, which takes several times as long.
        is_clean = end >= 0 and not self._scanned and _is_clean(buffer[:stop])
        if not is_clean and _CONTROL.search(buffer, max(self._scanned - 1, 0), stop) is not None:
            raise BadRequest(400, "a control byte, or a line end that is not CRLF")
        if end >= 0:
            section = bytes(memoryview(buffer)[:stop])
            del buffer[:stop]
            self._scanned = 0
            return section
        if len(buffer) >= limit:
            raise BadRequest(431, f"the fields are larger than {limit} bytes")
        self._scanned = stop
        return None

    def _read_head(self) -> Event:
        buffer = self._buffer
        # RFC 9112 2.2: one empty line before the request line is forgiven; some clients send it after a body.
        if not self._skipped_line and buffer and b"\r\n".startswith(buffer[:2]):
            if len(buffer) == 1:
                return _CLOSED if self._eof else _NEED_DATA
            del buffer[:2]
            self._skipped_line = True
        if not buffer:
            return _CLOSED if self._eof else _NEED_DATA
        if buffer[:2] == b"\r\n":
            raise BadRequest(400, "the request line is missing")
        self._check_target()
        raw = self._section()
        if raw is None:
            return self._wait()
        head = self._memo.read(raw)
        self._skipped_line = False
        self._keep_alive = head.keep_alive
        self._size = self._framing = 0
        self._left = head.content_length or 0
        self._step = Parser._read_chunk_line if head.chunked else Parser._read_sized
        return head

    def _check_target(self) -> None:
        """Refuse a target that is too long as soon as that is seen, whatever follows it."""
        limit = self._limits.target
        if self._scanned > limit + _METHOD_SIZE or len(self._buffer) <= limit:
            return
        method = _METHOD.match(self._buffer)
        if method is None or len(self._buffer) <= method.end() + limit:
            return
        # A control byte, or the end of the target, comes first: that is for others to judge.
        if _NO_TARGET.search(self._buffer, method.end(), method.end() + limit + 1) is None:
            raise BadRequest(414, f"the request target is longer than {limit} bytes")

    def _read_end(self) -> Event:
        self._step = Parser._read_head if self._keep_alive else Parser._closed
        return _END

    # A body of known size.

    def _take(self) -> Body:
        size = min(self._left, len(self._buffer))
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._left -= size
        return Body(data)

    def _read_sized(self) -> Event:
        if not self._left:
            return self._read_end()
        return self._take() if self._buffer else self._wait()

    # A body in chunks.

    def _spend(self, size: int) -> None:
        self._framing += size
        if self._framing > self._limits.framing:
            raise BadRequest(400, "the body is cut into too many chunks")

    def _read_chunk_line(self) -> Event | None:
        buffer, limit = self._buffer, self._limits.chunk_line
        end = buffer.find(b"\r\n", 0, limit + 2)
        if end < 0:
            if len(buffer) >= limit + 2 or _CONTROL.search(buffer) is not None:
                raise BadRequest(400, "a chunk size is malformed")
            return self._wait()
        line = _CHUNK_LINE.fullmatch(buffer, 0, end)
        if line is None:
            raise BadRequest(400, "a chunk size is malformed")
        self._left = int(line[1], 16)
        del line  # it holds the buffer, which could not shrink
        self._size += self._left
        if self._size > self._limits.body:
            raise BadRequest(413, f"the body is larger than {self._limits.body} bytes")
        self._spend(end + 4)
        del buffer[: end + 2]
        self._step = Parser._read_chunk if self._left else Parser._read_trailers
        return None

    def _read_chunk(self) -> Event | None:
        if self._left:
            return self._take() if self._buffer else self._wait()
        # RFC 9112 7.1: exactly CRLF behind the data.
        if not b"\r\n".startswith(self._buffer[:2]):
            raise BadRequest(400, "a chunk does not end where it should")
        if len(self._buffer) < 2:
            return self._wait()
        del self._buffer[:2]
        self._step = Parser._read_chunk_line
        return None

    def _read_trailers(self) -> Event | None:
        # RFC 9110 6.5.1: trailers are read and dropped; none is allowed to mean anything here.
        if self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
            self._scanned = 0
        else:
            section = self._section()
            if section is None:
                return self._wait()
            trailers = parse_fields(section[:-4].split(b"\r\n"), self._limits)
            if any(name in _NO_TRAILER for name, _ in trailers):
                raise BadRequest(400, "a trailer speaks of the framing or the connection")
        return self._read_end()
