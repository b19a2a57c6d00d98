"""Leases, and taking back what dead ones hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from taskd.domain.history import HistoryQuery
from taskd.domain.lease import Renewal
from taskd.domain.model import Status
from taskd.domain.outcome import Ending, Outcome
from taskd.store.claims import ClaimStore
from taskd.store.leases import LeaseStore, lock_key
from taskd.store.pool import Database
from taskd.store.statements import load
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker
from tests.waiting import eventually

EXPIRE = "UPDATE leases SET expires_at = clock_timestamp() - interval '1 ms' WHERE lease = $1"
MISS = "UPDATE leases SET renewed_at = clock_timestamp() - make_interval(secs => $2) WHERE lease = $1"


@pytest.fixture
async def listener(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of its own, as the one that holds a process's advisory lock."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def waits(database: Database) -> bool:
    """Whether some session waits for a lock."""
    here = "wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await database.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {here}"))


async def test_renew_tells_of_others_and_of_cancelled_tasks(
    make: Maker, leases: LeaseStore, tasks: TaskStore, claims: ClaimStore, lease: UUID
) -> None:
    assert await leases.renew(lease) == Renewal(True, 0, ())
    other = uuid4()
    await leases.register(other, "api", "else")
    task = await make.one()
    await make.one(kind="more")
    await claims.claim(lease, ["default", "more"], 2)
    await tasks.cancel(None, task.id)
    assert await leases.renew(lease) == Renewal(True, 1, ((task.id, 1),))
    assert await leases.renew(other) == Renewal(True, 1, ())
    await leases.end(other)
    assert await leases.renew(other) == Renewal(False, 0, ())


async def test_renew_tells_whether_another_has_missed_a_renewal(
    leases: LeaseStore, lease: UUID, database: Database
) -> None:
    other = uuid4()
    await leases.register(other, "api", "else")
    assert not (await leases.renew(lease)).overdue
    await database.execute(MISS, other, 3.0)
    assert (await leases.renew(lease)).overdue
    # Of one's own lease it says nothing: it is renewed just now.
    assert not (await leases.renew(other)).overdue


async def test_renewing_moves_the_end(leases: LeaseStore, lease: UUID, database: Database) -> None:
    await database.execute(EXPIRE, lease)
    # Expired, but nobody took it back: it lives again.
    assert (await leases.renew(lease)).alive
    left = await database.fetchval("SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM leases")
    assert 4 < left <= 6


async def test_registering_twice_is_once(leases: LeaseStore, lease: UUID, database: Database) -> None:
    await leases.register(lease, "all", "test")
    assert await database.fetchval("SELECT count(*) FROM leases") == 1


async def test_a_live_lease_keeps_its_tasks(make: Maker, leases: LeaseStore, claims: ClaimStore, lease: UUID) -> None:
    await make.one()
    await claims.claim(lease, ["default"], 1)
    assert await leases.rescue(100) == 0
    assert (await leases.renew(lease)).alive


async def test_rescue_moves_each_task_as_the_table_says(
    make: Maker, leases: LeaseStore, claims: ClaimStore, tasks: TaskStore, lease: UUID, database: Database
) -> None:
    again = await make.one("again")
    last = await make.one("last", max_attempts=1)
    stop = await make.one("stop")
    await claims.claim(lease, ["default"], 3)
    await tasks.cancel(None, stop.id)
    await database.execute(EXPIRE, lease)
    assert await leases.rescue(100) == 3
    found = {task.id: task for task in await tasks.get_many([again.id, last.id, stop.id])}
    assert [found[task.id].status for task in (again, last, stop)] == [
        Status.SCHEDULED,
        Status.FAILED,
        Status.CANCELLED,
    ]
    assert {task.attempt for task in found.values()} == {1}
    error = found[again.id].error
    assert error is not None
    assert (error.type, error.attempt) == ("WorkerLost", 1)
    assert found[stop.id].error is None
    events = {task: (await tasks.history(None, HistoryQuery(task))).events[-1].type.value for task in found}
    assert events == {again.id: "retrying", last.id: "failed", stop.id: "cancelled"}
    assert not (await leases.renew(lease)).alive
    assert await claims.finish(Outcome(again.id, 1, lease, Ending.DONE, "1")) is None
    assert await claims.promote() is None
    other = uuid4()
    await leases.register(other, "worker", "w")
    assert [task.attempt for task in await claims.claim(other, ["default"], 9)] == [2]


async def test_tasks_of_a_lease_that_is_not_there_are_rescued(
    make: Maker, leases: LeaseStore, claims: ClaimStore, lease: UUID
) -> None:
    await make.many(5)
    await claims.claim(lease, ["default"], 5)
    await leases.end(lease)
    assert [await leases.rescue(3), await leases.rescue(3), await leases.rescue(3)] == [3, 2, 0]


async def test_a_dead_lease_is_forgotten_only_when_it_holds_nothing(
    make: Maker, leases: LeaseStore, claims: ClaimStore, lease: UUID, database: Database
) -> None:
    await make.many(4)
    await claims.claim(lease, ["default"], 4)
    await database.execute(EXPIRE, lease)
    assert await leases.rescue(3) == 3
    assert await database.fetchval("SELECT count(*) FROM leases") == 1
    assert await leases.rescue(3) == 1
    assert await database.fetchval("SELECT count(*) FROM leases") == 0


async def test_rescuers_at_once_take_each_task_once(
    make: Maker, leases: LeaseStore, claims: ClaimStore, lease: UUID, database: Database
) -> None:
    await make.many(300)
    await claims.claim(lease, ["default"], 300)
    await database.execute(EXPIRE, lease)
    numbers = await asyncio.gather(*(leases.rescue(100) for _ in range(6)))
    while more := await leases.rescue(100):
        numbers.append(more)
    assert sum(numbers) == 300
    rows = await database.fetch("SELECT version FROM task_states")
    assert Counter(row["version"] for row in rows) == {3: 300}


async def test_a_process_without_its_lock_is_dead_after_missed_renewals(
    leases: LeaseStore, lease: UUID, database: Database, listener: asyncpg.Connection[Any]
) -> None:
    async def lives() -> bool:
        await leases.rescue(1)
        return bool(await database.fetchval("SELECT count(*) FROM leases"))

    # A connection that broke says nothing while renewals come.
    await database.execute(MISS, lease, 3.5)
    assert await lives()
    await listener.execute("SELECT pg_advisory_lock($1)", lock_key(lease))
    await database.execute(MISS, lease, 4.5)
    assert await lives()
    # Another lock is not this one.
    await listener.execute("SELECT pg_advisory_lock($1)", lock_key(lease) ^ 1)
    await listener.execute("SELECT pg_advisory_unlock($1)", lock_key(lease))
    assert not await lives()


@pytest.mark.parametrize("lease_text", ["00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff"])
async def test_locks_of_any_sign_are_found(
    leases: LeaseStore, database: Database, listener: asyncpg.Connection[Any], lease_text: str
) -> None:
    lease = UUID(lease_text)
    await leases.register(lease, "all", "x")
    await database.execute(MISS, lease, 5.0)
    await listener.execute("SELECT pg_advisory_lock($1)", lock_key(lease))
    await leases.rescue(1)
    assert (await leases.renew(lease)).alive


async def test_nothing_is_dead_soon_after_the_servers_start(
    make: Maker, claims: ClaimStore, database: Database, lease: UUID
) -> None:
    await make.one()
    await claims.claim(lease, ["default"], 1)
    await database.execute(EXPIRE, lease)
    uptime = await database.fetchval(
        "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
    )
    assert await LeaseStore(database, grace=uptime + 600).rescue(1) == 0
    assert await LeaseStore(database, grace=0).rescue(1) == 1


async def test_a_renewal_waits_for_a_rescue_and_then_knows(leases: LeaseStore, database: Database, lease: UUID) -> None:
    await database.execute(EXPIRE, lease)
    async with database.transaction() as rescuer:
        await rescuer.fetch(load("leases")["dead"], 0.0, 4.0)
        renewal = asyncio.ensure_future(leases.renew(lease))
        await eventually(lambda: waits(database))
        await rescuer.execute(load("leases")["forget"], [lease])
    assert await renewal == Renewal(False, 0, ())
