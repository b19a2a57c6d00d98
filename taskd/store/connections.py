"""The connections of one database: asyncpg's pool, and those of it that are kept at hand from one use to the next.

The pool bounds how many there are, makes them, closes those that nobody uses and renews those that were used much. But
to take one out and to put it back costs about three times what a small statement does, in two tasks and their turns of
the event loop. So one that was used and is well stays at hand for the next user, for as long as nobody waits for the
pool to have one, and for `AT_HAND_FOR` at the most: then the pool sees it again.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import asyncpg

from taskd.clock import Clock

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

    @property
    def size(self) -> int:
        """How many are open."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return self._pool.get_idle_size() + len(self._at_hand)

    @property
    def is_closing(self) -> bool:
        """Whether no more are given out."""
        return self._pool.is_closing()

    async def take(self) -> Taken:
        """Return one that nobody uses; to be given back.

        Raises:
            TimeoutError: there is none, for as long as this waits.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: none can be made.
        """
        while self._at_hand:
            taken = self._at_hand.pop()
            if not is_lost(taken[0]):
                return taken
            await self._pool.release(taken[0])
        self._wanted += 1
        try:
            return await self._pool.acquire(timeout=self._timeout), self._clock()
        finally:
            self._wanted -= 1

    async def give_back(self, taken: Taken, *, well: bool) -> None:
        """Take one back.

        Args:
            well: its last statement has ended, and no transaction is open.
        """
        connection, since = taken
        now = self._clock()
        if not well or self._wanted or now - since > AT_HAND_FOR or self._pool.is_closing():
            await self._pool.release(connection)
        else:
            self._at_hand.append(taken)
        if self._at_hand and now - self._at_hand[0][1] > AT_HAND_FOR:
            await self._pool.release(self._at_hand.popleft()[0])

    async def close(self) -> None:
        """Give out no more, and close all once nobody uses any."""
        while self._at_hand:
            await self._pool.release(self._at_hand.pop()[0])
        await self._pool.close()

    def terminate(self) -> None:
        """Close all at once."""
        self._pool.terminate()


def is_lost(connection: Connection) -> bool:
    """Return whether a connection is closed, whoever did it."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has taken it out already, under who holds it.
        return True
