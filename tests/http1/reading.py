"""What a parser says to bytes, however they are cut."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from taskd.http1.limits import BadRequest, Limits
from taskd.http1.parser import Body, Closed, End, Head, HeadMemo, NeedData, Parser

SMALL = Limits(head=400, fields=6, target=40, body=50, chunk_line=20, framing=60)
"""Bounds that a short row can reach."""

EVERY = 60
"""Up to so many bytes are cut at every place; more, at some places."""


@dataclass(frozen=True, slots=True)
class Read:
    """A request as it was read; `whole` if its end was seen."""

    head: Head
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Told:
    """All that a parser said: requests in order, then a refusal's status, or that no more will come, or neither."""

    requests: tuple[Read, ...]
    status: int | None
    closed: bool


class Reading:
    """A parser that is fed, and what it has said so far."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.parser = Parser(limits)
        self.status: int | None = None
        self.closed = False
        self._read: list[Read] = []

    def feed(self, data: bytes) -> None:
        self.parser.feed(data)
        self._ask()

    def end(self) -> None:
        self.parser.feed_eof()
        self._ask()

    @property
    def told(self) -> Told:
        return Told(tuple(self._read), self.status, self.closed)

    def _ask(self) -> None:
        try:
            while not isinstance(event := self.parser.next_event(), NeedData | Closed):
                if isinstance(event, Head):
                    self._read.append(Read(event, b"", whole=False))
                    continue
                last = self._read[-1]
                assert not last.whole
                if isinstance(event, End):
                    self._read[-1] = Read(last.head, last.body, whole=True)
                else:
                    assert isinstance(event, Body)
                    assert event.data
                    self._read[-1] = Read(last.head, last.body + event.data, whole=False)
            # Once it has said that no more will come, nothing comes.
            assert isinstance(event, Closed) or not self.closed
            self.closed = isinstance(event, Closed)
        except BadRequest as refusal:
            # And it stays with a refusal.
            assert self.status in (None, refusal.status)  # noqa: PT017
            self.status = refusal.status


def read(*pieces: bytes, limits: Limits = SMALL, eof: bool = False) -> Told:
    """Return what a parser says to these pieces, one after the other."""
    reading = Reading(limits)
    for piece in pieces:
        reading.feed(piece)
    if eof:
        reading.end()
    return reading.told


def at_a_glance(data: bytes, limits: Limits = SMALL) -> tuple[Head, bytes] | None:
    """Return what is said at a glance by a parser whose memo has met the fields, in a request for something else.

    It must be what is said in full, or nothing.
    """
    memo = HeadMemo(limits)
    before = Parser(limits, memo)
    before.feed(b"POST /met HTTP/1.1" + data[data.find(b"\r\n") :])
    with contextlib.suppress(BadRequest):
        before.next_event()
    parser = Parser(limits, memo)
    found = parser.whole(data)
    if found is not None:
        assert read(data, limits=limits) == Told((Read(found[0], found[1], whole=True),), None, closed=False)
        assert read(data, data, limits=limits).requests[1] == Read(found[0], found[1], whole=True)
    assert parser.buffered == 0
    return found


def in_all_ways(data: bytes, *, limits: Limits = SMALL, eof: bool = False) -> Told:
    """Return what a parser says, which must not depend on how the bytes were cut: whole, one by one, in two."""
    whole = read(data, limits=limits, eof=eof)
    assert read(*(data[n : n + 1] for n in range(len(data))), limits=limits, eof=eof) == whole
    for cut in range(1, len(data), 1 + len(data) // EVERY):
        assert read(data[:cut], data[cut:], limits=limits, eof=eof) == whole, cut
    at_a_glance(data, limits)
    return whole
