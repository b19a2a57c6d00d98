"""One server as a process: it runs until a signal, or until a part of it dies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from taskd.app import Taskd
from taskd.errors import TaskdError

logger = logging.getLogger("taskd")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


COLLECT_AFTER = (20_000, 20, 20)
"""New containers after which the garbage collector looks at the youngest; and how often until it looks at older ones.
Nothing here makes cycles by the request, and with its own 700 it takes a seventh of the time of a server under load,
to walk through requests that are being answered and tasks that are cached. So many are a few MiB."""


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a server's main coroutine to its end, and return its exit code: on uvloop, where that is installed."""
    gc.set_threshold(*COLLECT_AFTER)
    # Until it has started: what is made by then is nearly all there to stay.
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(main)
    finally:
        gc.enable()


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def run_until_signal(app: Taskd, started: Callable[[], Awaitable[None]]) -> int:
    """Start `app`, call `started`, and stop in order at the first signal; a second one waits for nothing.

    Returns the exit code: 0, or 1 when a part died.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set():
            logger.warning("%s again: not waiting for running tasks", number.name)
            app.hurry()
        else:
            logger.info("%s: stopping", number.name)
            asked.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, _reload, app)
    try:
        return await _run(app, started, asked)
    finally:
        for number in (*SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _reload(app: Taskd) -> None:
    try:
        app.reload()
    except TaskdError as error:
        logger.error("not renewed: %s", error)
    else:
        logger.info("SIGHUP: certificates are read again, if there are any")


async def _run(app: Taskd, started: Callable[[], Awaitable[None]], asked: asyncio.Event) -> int:
    signalled = asyncio.ensure_future(asked.wait())
    starting = asyncio.ensure_future(app.start())
    try:
        await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        await starting
        # What is there now stays.
        gc.freeze()
        gc.enable()
        await started()
        await asyncio.wait((signalled, app.failed), return_when=asyncio.FIRST_COMPLETED)
        return 1 if app.failed.done() else 0
    finally:
        for future in (starting, signalled):
            future.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await future
        await app.stop()
