"""One attempt of one task while it runs: started, stopped, ended.

What runs it may be a handler in this process (`Attempt`), or a worker elsewhere (`worker.session`).

A coroutine is stopped by a cancellation. A function in a thread can't be: `ctx.cancelled` turns true, and the thread
keeps its slot until it ends. Each function gets a thread of its own, a daemon, and the slots bound their number: the
threads of a `ThreadPoolExecutor` are joined at the interpreter's end, so one function that never returns would keep
the process from ever stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import Any

from taskd.runtime.supervisor import Supervisor
from taskd.worker.context import Context
from taskd.worker.job import Job
from taskd.worker.plan import Limits, Stop
from taskd.worker.registry import Handler
from taskd.worker.result import Ended, Raised, Returned, encode_result


class BaseAttempt:
    """One attempt, whatever runs it. Its owner calls `start` once, waits, and reads `ended`."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.job = job
        self.limits = limits
        self.stopped: Stop | None = None
        """Why it was stopped, the strongest reason; None while it is not."""
        self.ended: Ended | None = None
        """What became of it; None while it runs, or if it was never started."""
        self.started = False
        self._ended_or_stopped = asyncio.Event()
        self._ended = asyncio.Event()
        self._lost = asyncio.Event()

    @property
    def in_thread(self) -> bool:
        """Whether it can only be asked to stop: its slot is in use until it has ended."""
        return True

    def start(self, supervisor: Supervisor) -> None:
        """Have it run."""
        self.started = True
        self._start(supervisor)

    def _start(self, supervisor: Supervisor) -> None:
        raise NotImplementedError

    def stop(self, why: Stop) -> None:
        """Ask it to stop. A weaker reason than before changes nothing, nor one after its end."""
        if why is Stop.LOST:
            self._lost.set()
        elif self.ended is not None:
            return
        if self.stopped is not None and why <= self.stopped:
            return
        first, self.stopped = self.stopped is None, why
        self._ended_or_stopped.set()
        self._ask_to_stop(first)

    def _ask_to_stop(self, first: bool) -> None:
        """Tell what runs it why it is stopped; `first`: it was not told yet."""
        raise NotImplementedError

    def cancel_again(self) -> None:
        """Cancel a coroutine that runs on after it was stopped."""

    def settled(self, stored: bool) -> None:
        """Take note of whether its outcome was stored."""

    async def wait(self) -> None:
        """Wait until the handler ended or was stopped; stop it when its time is over."""
        try:
            async with asyncio.timeout(self.limits.timeout):
                await self._ended_or_stopped.wait()
        except TimeoutError:
            self.stop(Stop.TIMEOUT)

    async def wait_end(self, seconds: float | None) -> bool:
        """Wait up to `seconds`, or as long as it takes, for the handler's end; return whether it ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self.ended is not None

    async def wait_lost(self, seconds: float) -> bool:
        """Wait up to `seconds`, less when the lease is lost; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        return self._lost.is_set()

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        self._ended.set()
        self._ended_or_stopped.set()


class Attempt(BaseAttempt):
    """One run of a handler of this process."""

    def __init__(self, job: Job, handler: Handler, limits: Limits, context: Context) -> None:
        super().__init__(job, limits)
        self._handler = handler
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Returned | Raised] | None = None

    @property
    def in_thread(self) -> bool:
        """Whether the handler is a plain function, which runs in a thread."""
        return not self._handler.is_async

    def _start(self, supervisor: Supervisor) -> None:
        """Call the handler; a coroutine in a task of the supervisor's."""
        if self.in_thread:
            self._start_thread()
        else:
            self._task = supervisor.spawn(self._call(), f"handler {self._handler.kind}")
            self._task.add_done_callback(self._task_ended)

    def _ask_to_stop(self, first: bool) -> None:
        self._context.stop()
        if first:
            # Once only: a second cancellation would break off what the handler does to tidy up.
            self.cancel_again()

    def cancel_again(self) -> None:
        """Cancel a coroutine that runs on after it was stopped."""
        if self._task is not None:
            self._task.cancel()

    async def _call(self) -> Returned | Raised:
        try:
            return Returned(encode_result(await self._handler.function(self.job.task, self._context)))
        except BaseException as error:
            # SystemExit too: it would end the event loop from inside. A cancellation is judged by who asked for it.
            return Raised(error)

    def _call_plain(self) -> Returned | Raised:
        try:
            return Returned(encode_result(self._handler.function(self.job.task, self._context)))
        except BaseException as error:
            return Raised(error)

    def _start_thread(self) -> None:
        variables = contextvars.copy_context()

        def body() -> None:
            ended = variables.run(self._call_plain)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._end, ended)

        try:
            threading.Thread(target=body, name=f"handler {self._handler.kind}", daemon=True).start()
        except RuntimeError as error:
            self._end(Raised(error))  # no more threads can be had: as any error, tried again later

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        # Cancelled before its first step, it ends without having caught anything.
        self._end(Raised(asyncio.CancelledError()) if task.cancelled() else task.result())
