"""Entity tags and their preconditions (RFC 9110 8.8.3 and 13.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from taskd.http1.limits import BadRequest

_MEMBER = re.compile(rb'[ \t]*(?:(W/)?"([!#-~\x80-\xff]*)"[ \t]*)?(?:,|\Z)')


class Tags(NamedTuple):
    """The value of an `If-Match` or `If-None-Match`.

    Args:
        everything: it was `*`: any current representation.
        strong: opaque tags without their quotes.
        weak: opaque tags that came with `W/`.
    """

    everything: bool = False
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()

    def has_strong(self, tag: str) -> bool:
        """Tell whether the strong tag `tag` is meant, by strong comparison: for `If-Match` (RFC 9110 13.1.1)."""
        return self.everything or tag in self.strong

    def has_weak(self, tag: str) -> bool:
        """Tell whether `tag` is meant, by weak comparison: for `If-None-Match` (RFC 9110 13.1.2)."""
        return self.everything or tag in self.strong or tag in self.weak


def parse(value: bytes) -> Tags:
    """Read a list of entity tags, or `*`.

    Raises:
        BadRequest: 400 for anything else, the empty list included.
    """
    if value == b"*":
        return Tags(everything=True)
    strong: set[str] = set()
    weak: set[str] = set()
    at = 0
    while at < len(value):
        member = _MEMBER.match(value, at)
        if member is None:
            raise BadRequest(400, "a list of entity tags is malformed")
        if member[2] is not None:
            (weak if member[1] else strong).add(member[2].decode("latin-1"))
        at = member.end()
    if not strong and not weak:
        raise BadRequest(400, "a list of entity tags is empty")
    return Tags(strong=frozenset(strong), weak=frozenset(weak))


def quote(tag: str) -> str:
    """Return `tag` as the value of an `ETag` field."""
    return f'"{tag}"'
