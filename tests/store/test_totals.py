"""The numbers of tasks by status, at any place of the log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from taskd.domain.event import LOG_START, EventKey
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryQuery
from taskd.domain.model import Status
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog
from taskd.store.pool import Database
from taskd.store.statements import load
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.store.totals import TotalsStore
from tests.store.conftest import Maker
from tests.store.replay import Replay, counted, filled
from tests.store.test_leases import waits
from tests.store.test_log import inside
from tests.waiting import eventually

LATER = datetime(2100, 1, 1, tzinfo=UTC)
FOLD = load("totals")["fold"]
BEHIND = "SELECT count(*) FROM events, task_totals WHERE (xid, seq) > (mark_xid, mark_seq)"


@pytest.fixture
def totals(database: Database) -> TotalsStore:
    return TotalsStore(database)


@pytest.fixture
def sweep(database: Database) -> SweepStore:
    return SweepStore(database, retention_days=30, event_retention_hours=24)


async def fold_all(database: Database, sweep: SweepStore) -> None:
    """Fold until nothing is behind the mark: some other database of the cluster may hold its events back a while."""

    async def is_folded() -> bool:
        await sweep.fold_totals()
        return not await database.fetchval(BEHIND)

    await eventually(is_folded)


async def mark(database: Database) -> EventKey:
    row = await database.fetchrow("SELECT mark_xid, mark_seq FROM task_totals")
    assert row is not None
    return EventKey(*row)


async def expect_all_places(database: Database, totals: TotalsStore) -> None:
    """Fail unless the numbers at each place of the log are those that the log tells, and the last those counted."""
    replay = await Replay.of(database)
    for key in replay.keys:
        found = await totals.at(key)
        assert found == (max(key, await mark(database)), replay.at(found.key))
    assert found.counts == await counted(database)


async def test_an_empty_store_has_none(totals: TotalsStore) -> None:
    assert (await totals.at(LOG_START)).counts == filled({})


async def test_the_numbers_at_each_place_before_and_after_a_fold(
    make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID, totals: TotalsStore, database: Database,
    sweep: SweepStore,
) -> None:  # fmt: skip
    made = await make.many(4)
    await make.one(run_at=LATER)
    await claims.claim(lease, ["default"], 1)
    await tasks.cancel(None, made[1].id)
    await expect_all_places(database, totals)
    await fold_all(database, sweep)
    place = await mark(database)
    await tasks.delete(None, made[1].id)
    await tasks.update(None, made[2].id, TaskPatch({"run_at": LATER}))
    await expect_all_places(database, totals)
    assert await totals.at(LOG_START) == (place, (await Replay.of(database)).at(place))


async def test_an_event_tells_what_its_task_was(
    make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID, database: Database
) -> None:
    task = await make.one()
    await claims.claim(lease, ["default"], 1)
    await tasks.cancel(None, task.id)
    found = [event.was for event in (await tasks.history(None, HistoryQuery(task.id))).events]
    assert found == [None, Status.NEW, Status.RUNNING]
    await database.execute("UPDATE events SET was = NULL")
    page = await tasks.history(None, HistoryQuery(task.id))
    assert {event.was for event in page.events} == {None}


async def test_a_change_past_the_store_is_counted_too(make: Maker, database: Database, totals: TotalsStore) -> None:
    made = await make.many(3)
    change = "UPDATE task_states SET status = $2, version = version + 1, event = 'updated' WHERE task_id = $1"
    # Twice, so that what the change before left in `was` is wrong for the second.
    for status in ("scheduled", "new", "scheduled"):
        await database.execute(change, made[0].id, status)
    await database.execute("DELETE FROM task_states WHERE task_id = $1", made[1].id)
    await expect_all_places(database, totals)


async def test_an_event_that_does_not_tell_adds_nothing(
    make: Maker, database: Database, totals: TotalsStore, sweep: SweepStore
) -> None:
    await make.many(2)
    await database.execute("UPDATE events SET was = NULL")
    await make.one()
    last = (await Replay.of(database)).keys[-1]
    expected = filled({Status.NEW: 1})
    assert (await totals.at(last)).counts == expected
    await fold_all(database, sweep)
    assert await totals.at(LOG_START) == (last, expected)


async def test_a_fold_stops_before_what_readers_may_not_have(
    make: Maker, tasks: TaskStore, database: Database, totals: TotalsStore, sweep: SweepStore
) -> None:
    first, second = await make.many(2)
    async with database.transaction() as older:
        await TaskStore(inside(older)).update(None, first.id, TaskPatch({"run_at": LATER}))
        await tasks.cancel(None, second.id)
        await sweep.fold_totals()
        # What the open transaction wrote comes before this one's event, though it is not there yet.
        assert await database.fetchval(BEHIND) >= 1
    await expect_all_places(database, totals)
    await fold_all(database, sweep)
    await expect_all_places(database, totals)


async def test_of_two_folds_at_once_one_counts(make: Maker, database: Database, totals: TotalsStore) -> None:
    await make.many(5)
    last = (await Replay.of(database)).keys[-1]
    async with database.transaction() as one:
        await eventually(lambda: one.fetchval(FOLD, 3))
        other = asyncio.ensure_future(database.fetchval(FOLD, 2))
        await eventually(lambda: waits(database))
    assert await other is None
    assert (await totals.at(last)).counts == filled({Status.NEW: 5})


async def test_a_fold_goes_on_until_nothing_is_left(
    make: Maker, database: Database, totals: TotalsStore, sweep: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskd.store.sweep.FOLDED_AT_ONCE", 2)
    await make.many(7)

    async def folds() -> int:
        return await sweep.fold_totals()

    assert await eventually(folds) == 7
    assert await sweep.fold_totals() == 0
    assert await totals.at(LOG_START) == ((await Replay.of(database)).keys[-1], filled({Status.NEW: 7}))


async def test_a_fold_of_nothing_writes_nothing(database: Database) -> None:
    async with database.transaction() as session:
        assert await session.fetchval(FOLD, 10) is None
        assert await session.fetchval("SELECT pg_current_xact_id_if_assigned()::text") is None


async def test_a_recount_mends_the_numbers_while_the_log_goes_on(
    make: Maker, database: Database, totals: TotalsStore
) -> None:
    await make.many(3)
    async with database.transaction() as older:
        await older.execute("SELECT pg_current_xact_id()")
        # Above the mark to come, and there already.
        await make.many(2)
        await database.execute("UPDATE task_totals SET done = 99, mark_xid = '0'")
        await database.execute("SELECT recount_task_totals()")
        await TaskStore(inside(older)).cancel(None, (await make.one()).id)
    await expect_all_places(database, totals)
    assert (await counted(database))[Status.NEW] == 5


async def test_a_recount_waits_for_open_changes(make: Maker, database: Database, totals: TotalsStore) -> None:
    first, _ = await make.many(2)
    async with database.transaction() as session:
        await TaskStore(inside(session)).cancel(None, first.id)
        recount = asyncio.ensure_future(database.execute("SELECT recount_task_totals()"))
        await eventually(lambda: waits(database))
        await TaskStore(inside(session)).retry(None, first.id)
    await recount
    await expect_all_places(database, totals)


async def test_the_oldest_ready_task(
    make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID, database: Database, totals: TotalsStore
) -> None:
    assert await totals.oldest_ready() is None
    await make.one(run_at=LATER)
    assert await totals.oldest_ready() is None
    # Not ready before it was there.
    await make.one(run_at=datetime(2020, 1, 1, tzinfo=UTC))
    found = await totals.oldest_ready()
    assert found is not None
    assert 0 <= found < 600
    waiting = await make.one(kind="slow")
    age = "UPDATE task_states SET ready_at = ready_at - interval '1 h' WHERE task_id = $1"
    await database.execute(age, waiting.id)
    found = await totals.oldest_ready()
    assert found is not None
    assert 3600 <= found < 4200
    await claims.claim(lease, ["slow"], 1)
    found = await totals.oldest_ready()
    assert found is not None
    assert found < 600


async def test_the_present_numbers_hold_what_readers_must_wait_for(
    make: Maker, tasks: TaskStore, database: Database, totals: TotalsStore
) -> None:
    first = await make.one()
    async with database.transaction() as holder:
        await holder.fetchval("SELECT pg_current_xact_id()")
        await make.many(3)
        await tasks.cancel(None, first.id)
        at = await totals.at((await EventLog(database).place()).end)
        assert at.counts[Status.NEW] == 1
        present = await totals.present()
        assert (present[Status.NEW], present[Status.CANCELLED]) == (3, 1)
        await SweepStore(database, retention_days=1, event_retention_hours=1).fold_totals()
        assert await totals.present() == present
    assert await totals.present() == present


async def test_what_a_statement_that_knows_no_better_makes_ready_is_so_from_then_on(
    make: Maker, database: Database, totals: TotalsStore
) -> None:
    task = await make.one(run_at=LATER)
    await database.execute("UPDATE task_states SET ready_at = now() - interval '3 h' WHERE task_id = $1", task.id)
    await database.execute("UPDATE task_states SET status = 'new', version = version + 1 WHERE task_id = $1", task.id)
    found = await totals.oldest_ready()
    assert found is not None
    assert found < 600
