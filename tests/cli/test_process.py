"""A server as a process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

from taskd.cli import process


class App:
    """Starts at once, and never fails."""

    def __init__(self) -> None:
        self.collects: list[bool] = []

    async def start(self) -> None:
        self.failed = asyncio.get_running_loop().create_future()
        self.collects.append(gc.isenabled())

    async def stop(self) -> None:
        self.failed.cancel()


def test_garbage_is_collected_once_it_has_started() -> None:
    app: Any = App()

    async def started() -> None:
        app.collects.append(gc.isenabled())
        os.kill(os.getpid(), signal.SIGTERM)

    before = gc.get_threshold()
    try:
        assert process.run(process.run_until_signal(app, started)) == 0
        assert gc.get_freeze_count() > 0
        assert app.collects == [False, True]
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
