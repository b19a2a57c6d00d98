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
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._waiting: asyncio.Future[None] | None = None
        # Made when somebody waits for them: most attempts end before anybody does.
        self._end_event: asyncio.Event | None = None
        self._lost_event: asyncio.Event | None = None
        self._is_lost = False

    @property
    def in_thread(self) -> bool:
        """Whether it can only be asked to stop: its slot is in use until it has ended."""
        return True

    def start(self, supervisor: Supervisor) -> None:
        """Have it run."""
        self._began = self._loop.time()
        self._start(supervisor)
        self.started = True

    def _start(self, supervisor: Supervisor) -> None:
        raise NotImplementedError

    def stop(self, why: Stop) -> None:
        """Ask it to stop. A weaker reason than before changes nothing, nor one after its end."""
        if why is Stop.LOST:
            self._is_lost = True
            if self._lost_event is not None:
                self._lost_event.set()
        elif self.ended is not None:
            return
        if self.stopped is not None and why <= self.stopped:
            return
        first, self.stopped = self.stopped is None, why
        self._wake()
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
        if self.ended is not None or self.stopped is not None:
            return
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(self._began + self.limits.timeout, self._time_over)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _time_over(self) -> None:
        if self.stopped is None:
            self.stop(Stop.TIMEOUT)

    async def wait_end(self, seconds: float | None) -> bool:
        """Wait up to `seconds`, or as long as it takes, for the handler's end; return whether it ended."""
        if self.ended is None:
            event = self._end_event = self._end_event or asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        return self.ended is not None

    async def wait_lost(self, seconds: float) -> bool:
        """Wait up to `seconds`, less when the lease is lost; return whether it is."""
        if not self._is_lost:
            event = self._lost_event = self._lost_event or asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        return self._is_lost

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        if self._end_event is not None:
            self._end_event.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Attempt(BaseAttempt):
    """One run of a handler of this process."""

    def __init__(self, job: Job, handler: Handler, limits: Limits, context: Context) -> None:
        super().__init__(job, limits)
        self._handler = handler
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    @property
    def in_thread(self) -> bool:
        """Whether the handler is a plain function, which runs in a thread."""
        return not self._handler.is_async

    def _start(self, supervisor: Supervisor) -> None:
        """Call the handler; a coroutine in a task of the supervisor's."""
        if self.in_thread:
            self._start_thread()
        else:
            self._task = supervisor.spawn(self._run(), f"handler {self._handler.kind}")

    def _ask_to_stop(self, first: bool) -> None:
        self._context.stop()
        if first:
            # Once only: a second cancellation would break off what the handler does to tidy up.
            self.cancel_again()

    def cancel_again(self) -> None:
        """Cancel a coroutine that runs on after it was stopped."""
        if self._task is not None:
            self._task.cancel()
            if not self._begun:
                # Cancelled before its first step, it ends without having caught anything.
                self._end(Raised(asyncio.CancelledError()))

    async def _run(self) -> None:
        self._begun = True
        self._end(await self._call())

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
