"""The owner of every background task of a process.

asyncio forgets a task that nobody holds, and keeps its exception to itself until the task is collected. Here each
one is held until it ends, and a death by exception is logged at once and made known, so that the process can end in
order: a half of a server that looks alive is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from taskd.errors import Unavailable

T = TypeVar("T")

logger = logging.getLogger("taskd.supervisor")


class Supervisor:
    """Starts background tasks and sees them end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._stopped = False

    @property
    def failed(self) -> asyncio.Future[None]:
        """Gets the exception of the first task that dies by one; never a result. Wants a running loop."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return self._failed

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task. It may be cancelled by whoever asked for it; its errors are handled here.

        Raises:
            Unavailable: all has been stopped.
        """
        if self._stopped:
            coro.close()
            raise Unavailable("shutting down")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel all that still runs, also what is started meanwhile, and wait for its end. Safe twice.

        The caller sets the deadline: a task that ignores its cancellation keeps this waiting.
        """
        own = asyncio.current_task()
        while others := self._tasks - {own}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            self._tasks -= others
        self._stopped = True

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.critical("background task %s died", task.get_name(), exc_info=error)
        failed = self.failed
        if not failed.done():
            failed.set_exception(error)
            # It is logged already; asyncio need not complain when nobody waits for it.
            failed.exception()
