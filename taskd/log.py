"""The log: to standard error, as text for people or as JSON lines for programs.

What a client sends may end up in it, so control characters never reach the terminal or the file as they are: nobody
can forge a line or colour one. The program logs with the standard library under `taskd.…`; further facts go
along as `extra=fields(task=…)`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any, TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being served; each line that is logged meanwhile carries it."""


_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


# Of this process, and then of one request. Drawing each at random would ask the system each time, and nobody has to be
# kept from guessing them.
_PROCESS = os.urandom(8).hex()
_NUMBERS = count(1)


def new_request_id() -> str:
    """Return an id that no other request has: 32 hexadecimal digits."""
    return f"{_PROCESS}{next(_NUMBERS):016x}"


def request_id_of(given: bytes | None) -> str:
    """Return the caller's request id if it is 1 to 128 visible ASCII characters, else a new one."""
    return given.decode("ascii") if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()


# W3C Trace Context, section 3.2: version 00 is of just this form, later ones begin with it.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def traceparent_of(given: str | None) -> str | None:
    """Return the caller's `traceparent` if it is one, to be logged."""
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The W3C trace context that the request came with, if any; goes along to whoever is asked on its behalf."""


def fields(**facts: object) -> dict[str, Any]:
    """Return facts to log along with a message: `logger.info("created", extra=fields(task=id))`."""
    return {"taskd": facts}


def setup(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send the log of this process somewhere. For a process of taskd's own; a program that embeds it has its own log.

    Args:
        format: `text`, `json`, or `auto`: text if the stream is a terminal, else JSON.
        level: the least level that is logged of taskd; of other libraries, warnings.
        stream: standard error, unless given.
    """
    stream = sys.stderr if stream is None else stream
    if format == "auto":
        format = "text" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    # Replaces the handlers of an earlier call, and leaves those of others.
    for old in [old for old in root.handlers if isinstance(old.formatter, JsonFormatter | TextFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("taskd").setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII, so that any stream can carry it."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(self._format(record))

    def _format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            entry["request_id"] = current
        for name, fact in _facts(record).items():
            entry[name if name not in entry else f"{name}_"] = _plain(fact)
        if error := _error(self, record):
            entry["error"] = error
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line for a message and its facts, then an indented one for each line of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(self._format(record))

    def _format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        if current := request_id.get():
            facts = {**facts, "request_id": current}
        pairs = "".join(f"  {name}={_word(fact)}" for name, fact in facts.items())
        stamp = _timestamp(record.created)
        head = f"{stamp[11:]} {record.levelname:<8} {record.name}: {_escaped(record.getMessage())}{pairs}"
        # The bar shows that a line is a traceback's, whatever it looks like.
        return "\n".join([head, *(f"    | {_escaped(line)}" for line in _error(self, record).splitlines())])


# A password in a URL goes on to the last `@` before a space or a quote: some write it as it is.
_SECRET = re.compile(
    r"""(tk_)[0-9A-Za-z]{43}|(\w://[^\s:/@]*:)[^\s"']+(?=@)|(\b(?:password|passwd|sslpassword)=)[^&\s"']+"""
)


def without_secrets(text: str) -> str:
    """Return a text without what must not be in a log: tokens, and passwords in URLs."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2] or found[3]}***", text)


def _timestamp(seconds: float) -> str:
    # Rounded once, so that the milliseconds can't reach 1000.
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def _facts(record: logging.LogRecord) -> Mapping[str, object]:
    facts = getattr(record, "taskd", None)
    return facts if isinstance(facts, Mapping) else {}


def _error(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[1] else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _plain(fact: object) -> object:
    """Return a fact as JSON can carry it."""
    if fact is None or isinstance(fact, str | bool | int):
        return fact
    if isinstance(fact, float):
        return fact if math.isfinite(fact) else str(fact)
    if isinstance(fact, Mapping):
        return {str(name): _plain(value) for name, value in fact.items()}
    if isinstance(fact, list | tuple | set | frozenset):
        return [_plain(value) for value in fact]
    return str(fact)


def _word(fact: object) -> str:
    """Return a fact as one word of text; quoted, if it would otherwise look like several."""
    text = str(fact)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)
