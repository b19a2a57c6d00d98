"""Waiting for several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def together(*waits: Awaitable[object]) -> None:
    """Wait for all of them, side by side; then raise the error of the first that has one.

    Also after an error the others are waited for, so nothing goes on behind the caller's back.
    """
    for found in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
