"""The connections of one database: asyncpg's pool, and those of it that are kept at hand from one use to the next.

The pool bounds how many there are, makes them, closes those that nobody uses and renews those that were used much. But
to take one out and to put it back costs about three times what a small statement does, in two tasks and their turns of
the event loop. So one that was used and is well stays at hand for the next user, for as long as nobody waits for the
pool to have one, and for `AT_HAND_FOR`, or twice that if nobody uses it: then the pool has it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TypeAlias

import asyncpg

from taskd.clock import Clock
from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor

logger = logging.getLogger("taskd.store")

AT_HAND_FOR = 60.0
"""Seconds after which a connection that was taken out of the pool goes back there."""

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Taken: TypeAlias = "tuple[Connection, float]"
"""A connection, and when it was taken out of the pool."""


class Connections:
    """Gives connections out, one to each user at a time, and takes them back.

    Args:
        pool: where they come from.
        timeout: seconds to wait for one.
        clock: monotonic seconds.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], timeout: float, clock: Clock) -> None:
        self._pool = pool
        self._timeout = timeout
        self._clock = clock
        # The last one used is the next one used, so that those that are not needed go back.
        self._at_hand: deque[Taken] = deque()
        self._wanted = 0
        self._timer: asyncio.TimerHandle | None = None
        self._supervisor = Supervisor()

    @property
    def size(self) -> int:
        """How many are open."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return self._pool.get_idle_size() + sum(not is_lost(connection) for connection, _ in self._at_hand)

    async def take(self) -> Taken:
        """Return one that nobody uses; to be given back.

        Raises:
            Unavailable: no more are given out.
            TimeoutError: there is none, for as long as this waits.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: none can be made.
        """
        while self._at_hand:
            taken = self._at_hand.pop()
            if not is_lost(taken[0]):
                return taken
            await self._put_back(taken)
        if self._pool.is_closing():
            raise Unavailable("the database is closed here")
        self._wanted += 1
        try:
            return await self._pool.acquire(timeout=self._timeout), self._clock()
        finally:
            self._wanted -= 1

    async def give_back(self, taken: Taken, *, well: bool) -> None:
        """Take one back. Never fails: what its user did with it went as it went.

        Args:
            well: its last statement has ended, and no transaction is open.
        """
        if not well or self._wanted or self._is_old(taken) or self._pool.is_closing():
            await self._put_back(taken)
            return
        self._at_hand.append(taken)
        if self._timer is None:
            self._timer = self._set_timer()

    async def put_away(self) -> None:
        """Give the pool those at hand that were taken out of it long ago."""
        for taken in [taken for taken in self._at_hand if self._is_old(taken)]:
            # Another may have come for it while the one before went back.
            if taken in self._at_hand:
                self._at_hand.remove(taken)
                await self._put_back(taken)

    async def close(self) -> None:
        """Give out no more, and close all once nobody uses any; all at once, if this is cancelled."""
        self._stop_timer()
        try:
            await self._supervisor.stop()
            while self._at_hand:
                await self._put_back(self._at_hand.pop())
            await self._pool.close()
        except BaseException:
            self._pool.terminate()
            raise

    def terminate(self) -> None:
        """Close all at once."""
        self._stop_timer()
        self._pool.terminate()

    def _is_old(self, taken: Taken) -> bool:
        return self._clock() - taken[1] > AT_HAND_FOR

    async def _put_back(self, taken: Taken) -> None:
        """Give one back to the pool, which closes it if it is lost, or between two states, or was used much."""
        try:
            await self._pool.release(taken[0])
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            # It is closed then, and nobody's; the next one is made anew.
            logger.debug("a connection could not be put back", exc_info=True)

    def _on_timer(self) -> None:
        self._timer = None
        if self._at_hand:
            self._supervisor.spawn(self.put_away(), "connections")
            self._timer = self._set_timer()

    def _set_timer(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(AT_HAND_FOR, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def is_lost(connection: Connection) -> bool:
    """Return whether a connection is closed, whoever did it."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has taken it out already, under who holds it.
        return True
