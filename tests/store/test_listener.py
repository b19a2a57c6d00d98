"""The listening connection and the notifications, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.store.listener import CHANNEL, NOTIFY_GAP, Listener, Notifier
from taskd.store.pool import Database
from tests.waiting import eventually

KEY = 4711


class Ears:
    """A listener and what it heard."""

    def __init__(self, url: str, supervisor: Supervisor) -> None:
        self.key: int | None = KEY
        self.heard = 0
        self.connected = 0
        self.listener = Listener(url, lambda: self.key, self._hear, self._connect, supervisor)

    def _hear(self) -> None:
        self.heard += 1

    def _connect(self) -> None:
        self.connected += 1


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    found = Supervisor()
    yield found
    await found.stop()


@pytest.fixture
async def ears(database_url: str, supervisor: Supervisor) -> AsyncIterator[Ears]:
    found = Ears(database_url, supervisor)
    await found.listener.start()
    yield found
    await found.listener.stop()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    await found.open()
    yield found
    await found.close()


async def _locks(database: Database) -> set[int]:
    rows = await database.fetch(
        """SELECT objid::bigint AS key FROM pg_locks WHERE locktype = 'advisory'
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    )
    return {row["key"] for row in rows}


async def test_a_notification_of_another_process_wakes(ears: Ears, database: Database, supervisor: Supervisor) -> None:
    notifier = Notifier(database, supervisor)
    notifier.start()
    notifier.count_peers(1)
    notifier.committed()
    await eventually(lambda: ears.heard >= 1)
    await notifier.stop()


async def test_nobody_is_notified_when_nobody_else_is_there(
    ears: Ears, database: Database, supervisor: Supervisor
) -> None:
    notifier = Notifier(database, supervisor)
    notifier.committed()
    await notifier.run_once()
    notifier.count_peers(1)
    await notifier.run_once()
    await eventually(lambda: ears.heard == 1)


async def test_commits_within_the_gap_share_a_notification(
    ears: Ears, database: Database, supervisor: Supervisor
) -> None:
    notifier = Notifier(database, supervisor)
    notifier.count_peers(1)
    notifier.start()
    begun = time.monotonic()
    for _ in range(300):
        notifier.committed()
        await database.fetchval("SELECT 1")
    await notifier.stop()
    took = time.monotonic() - begun
    before = ears.heard
    await notifier.run_once()
    await eventually(lambda: ears.heard > before)
    # However long it took: one at the begin, one after each gap, and the last one here.
    assert ears.heard <= took / NOTIFY_GAP + 2


async def test_opened_ahead_it_hears_nothing_before_its_start(
    database_url: str, supervisor: Supervisor, database: Database
) -> None:
    ears = Ears(database_url, supervisor)
    await ears.listener.open()
    backend = ears.listener.backend
    await database.execute(f"NOTIFY {CHANNEL}")
    assert not await _locks(database)
    await ears.listener.start()
    assert (ears.listener.backend, ears.heard, ears.connected) == (backend, 0, 0)
    assert await _locks(database) == {KEY}
    await database.execute(f"NOTIFY {CHANNEL}")
    await eventually(lambda: ears.heard == 1)
    await ears.listener.stop()


async def test_a_connection_that_was_lost_before_the_start_is_replaced(
    database_url: str, supervisor: Supervisor, database: Database
) -> None:
    ears = Ears(database_url, supervisor)
    await ears.listener.open()
    first = ears.listener.backend
    assert await database.fetchval("SELECT pg_terminate_backend($1, 5000)", first)
    await eventually(lambda: ears.listener.backend is None)
    await ears.listener.start()
    assert ears.listener.backend not in (None, first)
    assert await _locks(database) == {KEY}
    await ears.listener.stop()
    # Never started, it holds a connection all the same.
    await ears.listener.open()
    await ears.listener.stop()
    assert ears.listener.backend is None


async def test_it_holds_the_lock_of_the_present_lease(ears: Ears, database: Database) -> None:
    assert await _locks(database) == {KEY}
    ears.key = KEY + 1
    await ears.listener.run_once()
    assert await _locks(database) == {KEY + 1}
    await ears.listener.stop()

    async def none() -> bool:
        return not await _locks(database)

    await eventually(none)


async def test_a_lock_that_another_session_holds_is_not_waited_for(
    ears: Ears, database: Database, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    assert await other.fetchval("SELECT pg_try_advisory_lock($1)", KEY + 1)
    ears.key = KEY + 1
    await ears.listener.run_once()
    await other.close()

    async def held() -> bool:
        await ears.listener.run_once()
        return await _locks(database) == {KEY + 1}

    await eventually(held)


async def test_a_lost_backend_is_replaced_and_the_log_read_again(ears: Ears, database: Database) -> None:
    first = ears.listener.backend
    assert await database.fetchval("SELECT pg_terminate_backend($1, 5000)", first)
    await eventually(lambda: ears.connected == 1)
    assert ears.listener.backend not in (None, first)
    assert await _locks(database) == {KEY}
    assert ears.listener.fault is None


async def test_a_connection_that_does_not_answer_its_probe_is_given_up(
    database_url: str, supervisor: Supervisor
) -> None:
    blocked = asyncio.Event()

    listener = Listener(database_url, lambda: None, lambda: None, blocked.set, supervisor)
    await listener.start()
    first = listener.backend
    assert first is not None
    # Stopped, not ended: the socket stays open and silent, as behind a cable that was pulled.

    os.kill(first, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            await blocked.wait()
        assert listener.backend not in (None, first)
    finally:
        os.kill(first, signal.SIGCONT)
        await listener.stop()


async def test_a_database_that_is_not_there_is_unavailable(supervisor: Supervisor) -> None:
    listener = Listener("postgresql://nobody@127.0.0.1:1/none", lambda: None, lambda: None, lambda: None, supervisor)
    with pytest.raises(Unavailable):
        await listener.start()
    await listener.stop()
