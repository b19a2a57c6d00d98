"""What the protocol layer takes, and how it says no."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds on one request. All sizes are in bytes and inclusive.

    Args:
        head: request line and fields with their line ends and the empty line; also the trailer section. More is 431.
        fields: field lines in a head, or in a trailer section. More is 431.
        target: the request target. More is 414.
        body: the content, after chunks are joined. More is 413.
        chunk_line: one chunk-size line with its extensions. More is 400.
        framing: all that chunked coding adds to one body: size lines, extensions, line ends. Without it a client could
            make the server work through a million chunks of one byte, or send extensions for ever (RFC 9112 7.1.1).
            More is 400.
    """

    head: int = 16 * 1024
    fields: int = 100
    target: int = 8 * 1024
    body: int = 1024 * 1024
    chunk_line: int = 1024
    framing: int = 128 * 1024


class BadRequest(Exception):
    """The request is refused: answer `status` with `message`, then close the connection.

    Args:
        status: 400, 413, 414, 417, 431, 501 or 505.
        message: one sentence that may be shown to the client; holds nothing that the client sent.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
