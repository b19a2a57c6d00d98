"""A time limit on others that does not run while this process itself stands still.

When the event loop was blocked for longer than the limit, asyncio's own timeout cancels a wait whose answer has been in
the socket for long: the one who was late is this process, and the other side gets the blame. Here the limit is
counted in steps, and a step counts as what it should have taken, however late the loop came to it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

STEPS = 5
"""A limit is measured to a fifth of it: a blocked loop uses up no more than one."""


class Patience:
    """An async context manager that cancels what is in it, and raises `TimeoutError`, when it takes too long.

    Args:
        seconds: the limit, of a loop that turns.
    """

    def __init__(self, seconds: float) -> None:
        self._step = seconds / STEPS
        self._left = STEPS
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._step, self._count)

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            self._wait()
        else:
            self._timeout.reschedule(asyncio.get_running_loop().time())
