"""How late the event loop is: the one number that says whether something holds up everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from taskd.metrics.registry import Histogram

EVERY = 0.5
"""Seconds between samples."""


class Loop(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Any: ...


class LoopLag:
    """Asks the loop to be called at a time, and notes how late it comes.

    The next sample is due a period after the last one came, so a stall of many periods counts once, with its length.
    An idle loop is up to a millisecond late, since that is how finely it sleeps (epoll_wait(2)).

    Args:
        lag: takes the seconds.
        every: seconds between samples.
        loop: the event loop; None: the running one at `start`.
    """

    def __init__(self, lag: Histogram, every: float = EVERY, loop: Loop | None = None) -> None:
        self._lag = lag
        self._every = every
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin. Safe twice."""
        if self._timer is None:
            self._arm(self._loop or asyncio.get_running_loop())

    def stop(self) -> None:
        """End. Safe twice, and before `start`."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, loop: Loop) -> None:
        due = loop.time() + self._every

        def sample() -> None:
            self._lag.observe(loop.time() - due)
            self._arm(loop)

        self._timer = loop.call_at(due, sample)
