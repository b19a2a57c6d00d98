"""A worker elsewhere: runs handlers in this process for a taskd that hands out tasks over gRPC."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial

from taskd.client.calls import caller_metadata
from taskd.client.shift import Shift
from taskd.clock import Clock, monotonic
from taskd.domain.retry import RetryPolicy
from taskd.errors import ConfigError, StartError
from taskd.rpc.channel import open_channel
from taskd.tls import Trust
from taskd.worker.execute import GRACE
from taskd.worker.registry import F, Registry

MOST_KINDS, MOST_SLOTS, MOST_NAME = 100, 1000, 200
LEAST_LEASE, MOST_LEASE = 2.0, 300.0


class Worker:
    """Runs handlers for a taskd elsewhere: `await worker.run()`, until `stop` or until that is cancelled.

    It connects again whenever that is needed, for as long as it runs; the log says why it can't.

    Args:
        target: `host:port` of its gRPC. A name with several addresses: one of them.
        slots: handlers that run at once, 1 to 1000.
        lease: seconds after which a server takes back the tasks of a worker that it does not hear, 2 to 300.
        user, token, trust: who works, and by TLS, as in `Client`.
        name: for who looks, up to 200 characters; host and process id, unless given.
        grace: seconds between the cancellations of a coroutine that goes on after it was stopped.
        clock: monotonic seconds.

    Raises:
        ConfigError, Invalid: an argument is wrong.
    """

    def __init__(
        self,
        target: str,
        *,
        slots: int = 16,
        lease: float = 10.0,
        user: str | None = None,
        token: str | None = None,
        trust: Trust | None = None,
        name: str = "",
        grace: float = GRACE,
        clock: Clock = monotonic,
    ) -> None:
        if type(slots) is not int or not 1 <= slots <= MOST_SLOTS:
            raise ConfigError(f"slots must be an integer between 1 and {MOST_SLOTS}")
        if not LEAST_LEASE <= lease <= MOST_LEASE:
            raise ConfigError(f"lease must be between {LEAST_LEASE:g} and {MOST_LEASE:g} seconds")
        if len(name) > MOST_NAME:
            raise ConfigError(f"name must be at most {MOST_NAME} characters long")
        self.registry = Registry()
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._slots = slots
        self._lease = lease
        self._grace = grace
        self._clock = clock
        self._connect = partial(open_channel, target, trust=trust)
        if trust is not None:
            trust.read()
        self._metadata = caller_metadata(user, token)
        self._shift: Shift | None = None
        self._ended = asyncio.Event()

    def handler(
        self,
        kind: str,
        *,
        timeout: float | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator that makes a function the handler of a kind, before `run`; see `worker.registry`.

        The server holds each attempt to the task's own limits, so `timeout` and `max_attempts` can only be stricter.

        Raises:
            ConfigError: an argument is wrong, or the kind has a handler already.
            StartError: it runs already.
        """

        def add(function: F) -> F:
            if self._shift is not None:
                raise StartError("the worker runs already: its kinds are what it began with")
            self.registry.add(kind, function, timeout, max_attempts, retry)
            return function

        return add

    @property
    def connected(self) -> bool:
        """Whether a server gives it tasks."""
        return self._shift is not None and self._shift.connected

    @property
    def busy(self) -> int:
        """Slots in use."""
        return 0 if self._shift is None else self._shift.hands.busy

    @property
    def refused(self) -> int:
        """Results that a server refused since `run`, because the attempt was no longer this worker's."""
        return 0 if self._shift is None else self._shift.refused

    async def run(self) -> None:
        """Work. Returns once `stop` is through; when it is cancelled, it gives back what runs and ends.

        Raises:
            ConfigError: it has no handlers, or more than 100.
            StartError: it runs already.
        """
        if self._shift is not None:
            raise StartError("the worker runs already")
        if not 1 <= len(self.registry.kinds) <= MOST_KINDS:
            raise ConfigError(f"a worker has handlers for 1 to {MOST_KINDS} kinds")
        shift = self._shift = Shift(
            self._connect,
            self._metadata,
            self.registry,
            slots=self._slots,
            lease=self._lease,
            name=self._name,
            grace=self._grace,
            clock=self._clock,
        )
        self._ended.clear()
        try:
            await shift.work()
        except asyncio.CancelledError:
            await shift.leave(0)
            raise
        finally:
            await shift.stop()
            self._shift = None
            self._ended.set()

    async def stop(self, within: float = 30.0) -> None:
        """Take no more tasks, let what runs end, and return when `run` has. Safe twice, and before `run`.

        Args:
            within: seconds; what runs on after that is stopped, and its task given back, the attempt unspent.
        """
        if self._shift is not None:
            await self._shift.leave(within)
            await self._ended.wait()
