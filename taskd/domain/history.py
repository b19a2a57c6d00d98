"""A task's history: which page of it is asked for, and what a page is.

A page goes on behind a version of the task, so it stays where it is whatever happens to the task meanwhile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from taskd.domain.cursor import decode_place, encode_place
from taskd.domain.event import Event
from taskd.domain.fields import Integer, Text
from taskd.domain.forms import Entry, Form
from taskd.errors import Fault, Invalid

HISTORY = Form(
    {
        "limit": Entry(Integer(1, 200), "events of a page; fewer come when they are large", 50),
        "cursor": Entry(Text(1, 200), "`next_cursor` of the page before", None),
    }
)

PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of a page's events, but for its last one: each has the whole task, with payload and result."""

_PLACE = struct.Struct(">16sQ")


class HistoryQuery(NamedTuple):
    """Which page: up to `limit` events of the task behind its version `after`."""

    task_id: UUID
    limit: int = 50
    after: int = 0

    @property
    def cursor(self) -> str | None:
        """The cursor that it was made with."""
        return encode_place(_PLACE.pack(self.task_id.bytes, self.after)) if self.after else None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page, oldest first; `next_cursor` is where the next one begins, None at the end."""

    events: tuple[Event, ...]
    next_cursor: str | None


def parse_history_query(task_id: UUID, query: Iterable[tuple[str, str]]) -> HistoryQuery:
    """Return what a URL's query asks for.

    Raises:
        Invalid: with every fault.
    """
    faults: list[Fault] = []
    good = HISTORY.read(query, faults)
    after = 0
    if (text := good.get("cursor")) is not None:
        try:
            after = _version(task_id, text)
        except Invalid as error:
            faults += error.faults
    if faults:
        raise Invalid(faults)
    return HistoryQuery(task_id, good.get("limit", 50), after)


def _version(task_id: UUID, text: str) -> int:
    raw, version = decode_place(text, _PLACE, "cursor")
    if raw != task_id.bytes:
        raise Invalid([Fault("cursor", "belongs to another task's history")])
    assert isinstance(version, int)
    if version >= 1 << 63:
        raise Invalid([Fault("cursor", "is not a cursor that was given out here")])
    return version


def cursor_behind(event: Event) -> str:
    """Return the cursor of the page behind an event."""
    cursor = HistoryQuery(event.task.id, after=event.task.version).cursor
    assert cursor is not None
    return cursor


def encode_history(page: HistoryPage) -> bytes:
    """Return a page as it is answered: `{"events": […], "next_cursor": …}`."""
    cursor = b"null" if page.next_cursor is None else b'"%b"' % page.next_cursor.encode()
    return b'{"events":[%b],"next_cursor":%b}' % (b",".join(event.json for event in page.events), cursor)
