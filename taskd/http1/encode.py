"""Answers as bytes (RFC 9112 4 to 7)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""The interim answer to `Expect: 100-continue` (RFC 9110 15.2.1)."""

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a body in chunked coding, without trailers."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_GOOD_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch


# Of `email.utils.formatdate`, which is not used: a start would wait for half of `email`.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=2)
def _date(moment: int) -> str:
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(moment)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


def http_date(now: float) -> str:
    """Return `now`, in seconds since 1970, as an IMF-fixdate (RFC 9110 5.6.7). The text of a second is made once."""
    return _date(int(now))


def _unregistered(status: int) -> str:
    return f"HTTP/1.1 {status} \r\n"


@lru_cache(maxsize=256)
def _is_token(name: str) -> bool:
    """Tell whether it is a field's name. A server has few, and sends them again and again."""
    return _NAME.fullmatch(name) is not None


def response_head(status: int, headers: Iterable[tuple[str, str]], *, now: float) -> bytes:
    """Return status line, `Date` and fields, up to and with the empty line.

    Args:
        status: 100 to 599. An unregistered one gets no reason phrase.
        headers: names and values, written in the given order. The caller says how the body ends: `Content-Length`,
            `Transfer-Encoding`, or neither.
        now: the time for `Date`, in seconds since 1970.

    Raises:
        ValueError: a status out of range, a name that is no token, or a value with a control byte or with a character
            beyond Latin-1. Nothing that a client sent can split an answer (RFC 9110 5.5).
    """
    if not 100 <= status <= 599:
        raise ValueError("status out of range")
    fields = [*headers]
    text = f"{_STATUS_LINES.get(status) or _unregistered(status)}Date: {http_date(now)}\r\n"
    for name, value in fields:
        if not _is_token(name):
            raise ValueError("field name is not a token")
        text += f"{name}: {value}\r\n"
    # One look at all of it is enough where there is nothing but ASCII, and no more line ends than were put there.
    if not text.isascii() or text.count("\n") != len(fields) + 2 or not text.replace("\r\n", "").isprintable():
        for name, value in fields:
            if not _GOOD_VALUE(value):
                raise ValueError(f"value of {name} has a control character")
    return f"{text}\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return `data`, which must not be empty, as one chunk (RFC 9112 7.1).

    Raises:
        ValueError: `data` is empty; an empty chunk would end the body.
    """
    if not data:
        raise ValueError("an empty chunk ends the body")
    return b"%x\r\n%b\r\n" % (len(data), data)
