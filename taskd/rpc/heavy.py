"""What takes long to translate: a page of large tasks, a batch of a thousand.

Done where it is asked for, several of them would keep the event loop from turning for seconds, and whoever can't renew
a lease in time loses what runs. So it is done in a thread, one at a time: the others wait, and the loop turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from taskd.domain.model import Task

T = TypeVar("T")

LARGE = 128 * 1024
"""Bytes that are translated in some milliseconds."""


class Heavy:
    """Translates what is large apart from the event loop."""

    def __init__(self) -> None:
        self.waiting = 0
        """How many wait for their turn, or have it."""
        self._turn = asyncio.Lock()

    async def run(self, size: int, translate: Callable[[], T]) -> T:
        """Return what `translate` does: of more than `LARGE` bytes in a thread, when its turn has come."""
        if size <= LARGE:
            return translate()
        self.waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(translate)
        finally:
            self.waiting -= 1


def size_of(tasks: Iterable[Task]) -> int:
    """Return about how many bytes tasks are to translate."""
    return sum(len(task.payload_json) + len(task.description) + len(task.result_json or "") for task in tasks)
