"""What a handler returned or raised, in a form that can be stored."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import NamedTuple

from taskd.domain.codec import dump_json
from taskd.domain.fields import json_fault

MAX_RESULT = 1024 * 1024
"""Bytes of a result as compact UTF-8 JSON; as much as a request may bring in."""

MAX_MESSAGE = 10_000
"""Characters of an error's message that are kept."""

MAX_TYPE = 200


class ResultError(Exception):
    """A handler returned what can't be stored. The message says why."""


class Returned(NamedTuple):
    """The handler returned this, as JSON text."""

    result_json: str


class Raised(NamedTuple):
    """The handler raised this."""

    error: BaseException


class Failed(NamedTuple):
    """A worker elsewhere says that it failed: the error's name and message.

    `after` is in how many seconds it is to be tried again (None: as the policy has it); `final`: not at all.
    """

    type: str
    message: str
    after: float | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A worker elsewhere has not done it: the attempt is unspent."""


Ended = Returned | Raised | Failed | GivenBack
"""What became of an attempt."""


def encode_result(value: object) -> str:
    """Return a handler's result as JSON text.

    Raises:
        ResultError: it is not JSON, is nested too deep, or is larger than `MAX_RESULT`.
    """
    if value is None:
        return "null"
    if inspect.iscoroutine(value):
        value.close()
        raise ResultError("the handler returned a coroutine: make it `async def`")
    try:
        text = dump_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"the result is not JSON: {error}") from None
    return check_result(text)


def check_result(text: str) -> str:
    """Return a result's JSON text.

    Raises:
        ResultError: it is not JSON, is nested too deep, or is larger than `MAX_RESULT`.
    """
    try:
        size = len(text) if text.isascii() else len(text.encode())
        if size > MAX_RESULT:
            raise ResultError(f"the result must be at most {MAX_RESULT} bytes as JSON, not {size}")
        fault = json_fault(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"the result is not JSON: {error}") from None
    if fault:
        raise ResultError(f"the result {fault}")
    return text


def clean_text(text: str, longest: int) -> str:
    """Return text that can be stored: without NUL and lone surrogates, cut to `longest` characters."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def error_type(error: BaseException) -> str:
    """Return the name of an error's class."""
    return clean_text(type(error).__name__, MAX_TYPE)


def error_message(error: BaseException) -> str:
    """Return an error's message; a message that can't be had is no reason to fail here."""
    try:
        return clean_text(str(error), MAX_MESSAGE)
    except Exception:
        return "its message can't be had: str() of the error failed"
