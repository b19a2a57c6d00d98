"""Request targets (RFC 9112 3.2, RFC 3986)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from taskd.http1.limits import BadRequest

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


def split(target: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Return the decoded path, and the decoded query as pairs in order.

    A byte that is no UTF-8 becomes a lone surrogate (`surrogateescape`), so that whoever checks the value can name the
    field. In the path `%2F` stays as it is: decoded it would be a separator, which it is not (RFC 3986 2.2). In the
    query `+` is a space, a name without `=` has the value `""`, and empty pairs are dropped. Dot segments stay.

    Args:
        target: a target that the parser let through, in origin-form, absolute-form, or `*`.

    Raises:
        BadRequest: 400 for a `%` without two hexadecimal digits.
    """
    if b"%" in target and _BAD_ESCAPE.search(target) is not None:
        raise BadRequest(400, "the request target has a malformed percent-encoding")
    if not target.startswith((b"/", b"*")):
        target = _ORIGIN.sub(b"", target, count=1)
    path, _, query = target.partition(b"?")
    return _path(path or b"/"), [_pair(part) for part in query.split(b"&") if part]


def _path(path: bytes) -> str:
    if b"%" not in path:
        return path.decode("utf-8", "surrogateescape")
    return _text(_SLASH.sub(b"%252F", path))


def _pair(part: bytes) -> tuple[str, str]:
    name, _, value = part.replace(b"+", b" ").partition(b"=")
    return _text(name), _text(value)


def _text(escaped: bytes) -> str:
    return unquote_to_bytes(escaped).decode("utf-8", "surrogateescape")
