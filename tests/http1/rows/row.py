"""One row of the table: bytes, what must become of them, and the clause that says so.

Clauses are of RFC 9110 and RFC 9112 unless another RFC is named. Where the RFC leaves a choice, the stricter one is
taken; `docs/decisions/0006-hostile-http.md` tells why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LINE = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
GET = LINE + HOST
"""A request line with Host, to be followed by fields and an empty line."""

OLD = b"GET / HTTP/1.0\r\n"
CHUNKED = GET + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"


class Wanted(NamedTuple):
    """A request that must be read so."""

    method: str = "GET"
    target: bytes = b"/"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes, and what must become of them.

    Args:
        name: what is special about them.
        clause: of the RFC.
        raw: the bytes; nothing that is needed to judge them comes later.
        wanted: the requests in them that must be read whole.
        status: the refusal that comes after these, or None: then whatever follows is read as the next request.
        closed: no refusal, but nothing that follows is read either.
        fields: all fields of the first request but Host, where that is the point.
    """

    name: str
    clause: str
    raw: bytes
    wanted: tuple[Wanted, ...] = ()
    status: int | None = None
    closed: bool = False
    fields: tuple[tuple[bytes, bytes], ...] | None = None


def good(
    name: str,
    clause: str,
    raw: bytes,
    *wanted: Wanted,
    body: bytes = b"",
    closed: bool = False,
    fields: tuple[tuple[bytes, bytes], ...] | None = None,
) -> Row:
    """Return a row of requests that are read; by default one GET of `/` with `body`."""
    return Row(name, clause, raw, wanted or (Wanted(body=body),), closed=closed, fields=fields)


def bad(name: str, clause: str, raw: bytes, *, status: int = 400, after: tuple[Wanted, ...] = ()) -> Row:
    """Return a row that is refused, after the requests that came before."""
    return Row(name, clause, raw, after, status)
