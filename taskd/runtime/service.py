"""Background duties: something done now and then, for as long as the process lives.

Each duty is a `run_once` that a test can call by itself, and a `Periodic` that calls it. An outage of the database is
no reason to die: the duty says so once, waits longer and longer, and goes on. Any other error is a bug, and
ends the process in order through the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.supervisor import Supervisor

logger = logging.getLogger("taskd.service")


class Periodic:
    """Calls `run_once` again and again.

    Args:
        name: what the log calls it.
        run_once: does the duty once; returns the seconds until it wants to be called again, or None to be called
            only when woken. `Unavailable` is an outage; another exception is a bug.
        supervisor: owns the loop.
        backoff: the pauses during an outage.
    """

    def __init__(
        self, name: str, run_once: Callable[[], Awaitable[float | None]], supervisor: Supervisor, backoff: Backoff
    ) -> None:
        self.name = name
        self.fault: str | None = None
        """Why the duty can't be done now; None while all is well."""
        self._run_once = run_once
        self._supervisor = supervisor
        self._backoff = backoff
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with a first call at once. Does nothing while it runs."""
        if self._task is None or self._task.done():
            self._task = self._supervisor.spawn(self._loop(), self.name)

    async def stop(self) -> None:
        """Cancel the call that runs, and call no more. Safe twice, and before `start`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def wake(self) -> None:
        """Have it called now, or once more if it runs just now. An outage's pause is not cut short."""
        self._woken.set()

    async def _loop(self) -> None:
        while True:
            # Cleared before the call: what happens during it may come too late for it, and asks for another.
            self._woken.clear()
            try:
                pause = await self._run_once()
            except Unavailable as error:
                if self.fault is None:
                    logger.warning("%s: %s; trying again until it works", self.name, error)
                self.fault = str(error)
                # Not woken from this: each commit may wake a duty, and the database has enough to do coming back.
                await asyncio.sleep(self._backoff.next())
            else:
                if self.fault is not None:
                    logger.info("%s works again", self.name)
                self.fault = None
                self._backoff.reset()
                await self._rest(pause)

    async def _rest(self, seconds: float | None) -> None:
        # Others get a turn, even if the duty never waits and is woken all the time.
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
