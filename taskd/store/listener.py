"""News between processes: a connection that listens, and a duty that notifies.

A notification is empty and only wakes: what happened is in the event log. It is sent after the commit, by a duty of
its own and at most once in 20 ms, because `NOTIFY` takes a lock of the whole database at commit and would line up
all writers behind one another; and only when another process is registered, since this one wakes itself.

The listening connection is its own, for a pooler can't carry it (`TASKD_DATABASE_LISTEN_URL`). It also holds the
session's advisory lock by which peers see at once that this process has died. It is probed, because a connection
whose other end is gone without a word looks just like one on which nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg

from taskd.runtime.backoff import Backoff
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.store.faults import translated
from taskd.store.pool import Database
from taskd.store.statements import load

logger = logging.getLogger("taskd.listener")

CHANNEL = "taskd"

PROBE_EVERY, PROBE_TIMEOUT = 2.0, 2.0
"""Seconds between probes of the listening connection, and for the answer to one."""

NOTIFY_GAP = 0.02
"""Seconds between notifications of one process at the least."""


class Listener:
    """Keeps one listening connection open.

    Args:
        url: the database, past any pooler.
        lock_key: the advisory lock that this process's lease names, asked anew at each connection.
        woken: called for each notification.
        connected: called after each connection but the first: notifications may have been missed.
    """

    def __init__(
        self,
        url: str,
        lock_key: Callable[[], int | None],
        woken: Callable[[], None],
        connected: Callable[[], None],
        supervisor: Supervisor,
    ) -> None:
        self._url = url
        self._lock_key = lock_key
        self._locked: int | None = None
        self._woken = woken
        self._connected = connected
        self._connection: asyncpg.Connection[Any] | None = None
        self._service = Periodic("listener", self.run_once, supervisor, Backoff(0.1, 2.0))

    @property
    def fault(self) -> str | None:
        """Why nothing can be heard now, or None."""
        return self._service.fault

    @property
    def backend(self) -> int | None:
        """The process id of the connection's backend, or None while there is none."""
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection.get_server_pid()

    async def open(self) -> None:
        """Connect, and hear nothing yet: ahead of `start`, which then need not. Does nothing when connected already.

        Raises:
            Unavailable: the database does not answer.
        """
        if self._connection is not None and not self._connection.is_closed():
            return
        with translated():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=10,
                command_timeout=PROBE_TIMEOUT,
                server_settings={"application_name": "taskd listener"},
            )

    async def start(self) -> None:
        """Listen, and keep connected.

        Raises:
            Unavailable: the database does not answer.
        """
        await self._listen()
        self._service.start()

    async def stop(self) -> None:
        """Close the connection. Safe twice, and before `start`."""
        await self._service.stop()
        await self._disconnect()

    async def run_once(self) -> float:
        """Probe the connection, or make another; return the seconds until the next probe."""
        if self._connection is None or self._connection.is_closed():
            await self._disconnect()
            await self._listen()
            logger.info("listening again")
            self._connected()
        else:
            await self._probe(self._connection)
        return PROBE_EVERY

    async def _listen(self) -> None:
        await self.open()
        connection = self._connection
        assert connection is not None, "it was opened"
        try:
            with translated():
                await connection.add_listener(CHANNEL, self._on_notification)
                await self._lock(connection)
        except BaseException:
            self._connection = self._locked = None
            connection.terminate()
            raise
        connection.add_termination_listener(self._on_termination)

    async def _lock(self, connection: asyncpg.Connection[Any]) -> None:
        """Hold the present lease's lock, and no older one's.

        Never waits: after a broken connection its backend may hold the lock for a while, and the next probe tries
        again.
        """
        key = self._lock_key()
        if key == self._locked:
            return
        if self._locked is not None:
            await connection.execute("SELECT pg_advisory_unlock_all()")
            self._locked = None
        if key is not None and await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
            self._locked = key

    async def _probe(self, connection: asyncpg.Connection[Any]) -> None:
        try:
            with translated():
                await connection.execute("SELECT 1")
                await self._lock(connection)
        except Exception:
            # A connection that does not answer a probe is worth nothing, open or not.
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        connection, self._connection, self._locked = self._connection, None, None
        if connection is None:
            return
        connection.remove_termination_listener(self._on_termination)
        if not connection.is_closed():
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except Exception:
                connection.terminate()

    def _on_notification(self, *_: object) -> None:
        self._woken()

    def _on_termination(self, _: object) -> None:
        self._service.wake()


class Notifier:
    """Tells the other processes that there may be something new."""

    def __init__(self, database: Database, supervisor: Supervisor) -> None:
        self._peers = 0
        self._database = database
        self._service = Periodic("notifier", self.run_once, supervisor, Backoff(0.1, 2.0))

    def start(self) -> None:
        """Begin."""
        self._service.start()

    async def stop(self) -> None:
        """Send nothing more. Safe twice, and before `start`."""
        await self._service.stop()

    @property
    def has_peers(self) -> bool:
        """Whether another process is registered, as far as is known."""
        return self._peers > 0

    def count_peers(self, number: int) -> None:
        """Say how many other processes are registered.

        One that has just come is notified at once: what was committed before it was known may be news to it.
        """
        came, self._peers = number > self._peers, number
        if came:
            self._service.wake()

    def committed(self) -> None:
        """Say that something was committed which others should see."""
        if self._peers:
            self._service.wake()

    async def run_once(self) -> None:
        """Notify once, then keep still for the gap: what is committed meanwhile shares the next notification."""
        if self._peers:
            await self._database.execute(load("events")["notify"])
            await asyncio.sleep(NOTIFY_GAP)
