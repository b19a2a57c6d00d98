"""Wait for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

LOOK_EVERY = 0.01
"""Seconds between two looks."""


async def eventually(predicate: Callable[[], T | Awaitable[T]], within: float = 30.0) -> T:
    """Return the first truthy value of `predicate`, sync or async; fail the test when none comes in `within` seconds.

    An exception of the predicate goes to the caller at once.
    """
    began = time.monotonic()
    while True:
        answer = predicate()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() - began > within:
            pytest.fail(f"not true within {within:g} s: {_name(predicate)} (last value: {value!r})", pytrace=True)
        await asyncio.sleep(LOOK_EVERY)


def _name(predicate: Callable[..., object]) -> str:
    """Say where the predicate stands: a lambda's name says nothing."""
    code = getattr(predicate, "__code__", None)
    name = getattr(predicate, "__qualname__", repr(predicate))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
