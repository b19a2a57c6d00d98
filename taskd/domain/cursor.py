"""Opaque places: where a list or the event log goes on.

A cursor is base64url of a few fixed fields. It is not signed: whoever makes one up gets a place in what they may
read anyway. A list's cursor holds a digest of what was listed, so that it can't silently continue another list.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from taskd.domain.event import EventKey
from taskd.domain.model import ListQuery
from taskd.errors import Fault, Invalid

_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LIST = struct.Struct(">8sq16s")
_LOG = struct.Struct(">8sQQ")


class LogCursor(NamedTuple):
    """A place in the log of the database that `epoch` (8 bytes) names."""

    epoch: bytes
    key: EventKey


def decode_place(text: str, shape: struct.Struct, field: str) -> tuple[object, ...]:
    """Return the fields that `encode_place` wrote.

    Raises:
        Invalid: it wrote no such text; names `field`.
    """
    fault = Invalid([Fault(field, "is not a cursor that was given out here")])
    if not text.isascii() or len(text) != (shape.size * 4 + 2) // 3:
        raise fault
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise fault from None
    if len(raw) != shape.size or encode_place(raw) != text:
        raise fault
    return shape.unpack(raw)


def encode_place(raw: bytes) -> str:
    """Return a place's fields, packed, as a cursor's text."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _digest(query: ListQuery) -> bytes:
    what = (query.owner, query.statuses, query.kind, query.created_after, query.created_before, query.newest_first)
    return hashlib.blake2b(repr(what).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def encode_list_cursor(query: ListQuery, place: tuple[datetime, UUID]) -> str:
    """Return the cursor behind the task created at `place[0]` with id `place[1]`, in the list of `query`."""
    created_at, task_id = place
    return encode_place(_LIST.pack(_digest(query), (created_at - _ORIGIN) // _MICROSECOND, task_id.bytes))


def decode_list_cursor(query: ListQuery, text: str) -> tuple[datetime, UUID]:
    """Return the place that `encode_list_cursor` wrote.

    Raises:
        Invalid: no cursor, or one of a list with other filters or another order; names `cursor`.
    """
    digest, microseconds, task_id = decode_place(text, _LIST, "cursor")
    if digest != _digest(query):
        raise Invalid([Fault("cursor", "belongs to a list with other filters or another order")])
    assert isinstance(microseconds, int) and isinstance(task_id, bytes)
    try:
        return _ORIGIN + microseconds * _MICROSECOND, UUID(bytes=task_id)
    except OverflowError:
        raise Invalid([Fault("cursor", "is not a cursor that was given out here")]) from None


def encode_log_cursor(cursor: LogCursor) -> str:
    """Return the text that clients see of a place in the log."""
    return encode_place(_LOG.pack(cursor.epoch, cursor.key.xid, cursor.key.seq))


def decode_log_cursor(text: str, field: str = "after") -> LogCursor:
    """Return the place that `encode_log_cursor` wrote.

    Raises:
        Invalid: no cursor; names `field`.
    """
    epoch, xid, seq = decode_place(text, _LOG, field)
    assert isinstance(epoch, bytes) and isinstance(xid, int) and isinstance(seq, int)
    if xid >= 1 << 63 or seq >= 1 << 63:
        raise Invalid([Fault(field, "is not a cursor that was given out here")])
    return LogCursor(epoch, EventKey(xid, seq))
