"""What goes by itself."""

from __future__ import annotations

import asyncio

from taskd.domain.forms import TaskPatch
from taskd.domain.model import NewTask
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker
from tests.waiting import eventually

AGE = "UPDATE task_states SET finished_at = finished_at - interval '31 days' WHERE task_id = ANY ($1::uuid[])"


def sweep(database: Database, hours: int = 24) -> SweepStore:
    return SweepStore(database, retention_days=30, event_retention_hours=hours)


async def fold_all(database: Database) -> None:
    """Fold until nothing is behind the mark: some other database of the cluster may hold its events back a while."""

    async def is_folded() -> bool:
        await sweep(database).fold_totals()
        return not await database.fetchval("SELECT count(*) FROM events, task_totals WHERE xid > mark_xid")

    await eventually(is_folded)


async def test_old_final_tasks_go_and_say_so(make: Maker, tasks: TaskStore, database: Database) -> None:
    made = await make.many(6)
    for task in made[:5]:
        await tasks.cancel(None, task.id)
    await database.execute(AGE, [task.id for task in made[:4]])
    assert [await sweep(database).delete_finished(3) for _ in range(3)] == [3, 1, 0]
    left = await tasks.get_many([task.id for task in made])
    assert {task.id for task in left} == {task.id for task in made[4:]}
    rows = await database.fetch("SELECT id, title FROM event_rows WHERE type = 'deleted'")
    assert {(row["id"], row["title"]) for row in rows} == {(task.id, task.title) for task in made[:4]}


async def test_old_idempotency_keys_go(tasks: TaskStore, database: Database) -> None:
    await tasks.insert_once("ann", [NewTask("x")], "old", b"f")
    await database.execute("UPDATE idempotency SET created_at = created_at - interval '25 hours'")
    await tasks.insert_once("ann", [NewTask("x")], "new", b"f")
    await sweep(database).delete_finished(1)
    assert [row["key"] for row in await database.fetch("SELECT key FROM idempotency")] == ["new"]


async def test_partitions_are_made_ahead_without_a_gap(make: Maker, database: Database) -> None:
    await asyncio.gather(*(sweep(database).rotate_events() for _ in range(4)))
    await sweep(database).rotate_events()
    rows = await database.fetch(
        "SELECT name, upper_end, lag(upper_end) OVER (ORDER BY upper_end) AS lower_end FROM event_partitions"
    )
    assert rows
    assert all(row["lower_end"] is None or (row["upper_end"] - row["lower_end"]).seconds == 6 * 3600 for row in rows)
    ahead = await database.fetchval(
        "SELECT extract(epoch FROM max(upper_end) - clock_timestamp())::float8 / 3600 FROM event_partitions"
    )
    assert ahead >= 7
    # Until the first of them begins, the default partition takes what comes.
    await make.one()


async def test_events_go_to_the_partition_of_their_time(make: Maker, database: Database) -> None:
    await database.execute("SELECT add_event_partition('2020-01-01Z', '2100-01-01Z')")
    await make.one()
    assert await database.fetchval("SELECT count(*) FROM events_20200101_0000") == 1


async def test_old_partitions_go_and_leave_the_floor(make: Maker, tasks: TaskStore, database: Database) -> None:
    old = await make.one()
    await tasks.update(None, old.id, TaskPatch({"priority": 1}))
    await database.execute("SELECT add_event_partition('2020-01-01Z', '2020-01-02Z')")
    await database.execute("UPDATE events SET at = '2020-01-01T12:00Z'")
    young = await make.one()
    last = await database.fetchrow("SELECT xid, seq FROM events WHERE task_id = $1 ORDER BY seq DESC", old.id)
    assert last is not None
    await fold_all(database)
    await sweep(database).rotate_events()
    assert [row["task_id"] for row in await database.fetch("SELECT task_id FROM events")] == [young.id]
    floor = await database.fetchrow("SELECT floor_xid, floor_seq FROM meta")
    assert floor is not None
    assert tuple(floor) == tuple(last)
    assert await database.fetchval("SELECT to_regclass('events_20200101_0000')") is None


async def test_old_events_of_the_default_partition_go_too(make: Maker, database: Database) -> None:
    await make.many(3)
    await database.execute("UPDATE events SET at = at - interval '25 hours'")
    await make.one()
    await fold_all(database)
    await sweep(database).rotate_events()
    assert await database.fetchval("SELECT count(*) FROM events") == 1
    assert await database.fetchval("SELECT floor_seq FROM meta") == 3
    await sweep(database, hours=100).rotate_events()
    assert await database.fetchval("SELECT floor_seq FROM meta") == 3


async def test_an_event_that_is_not_in_the_totals_stays_with_its_partition(make: Maker, database: Database) -> None:
    kept = "SELECT type, version FROM events ORDER BY type"
    async with database.transaction() as older:
        # From here on nothing can be folded.
        await older.execute("SELECT pg_current_xact_id()")
        first, second = await make.many(2)
        await database.execute("SELECT add_event_partition('2020-01-01Z', '2020-01-02Z')")
        await database.execute("UPDATE events SET at = '2020-01-01T12:00Z' WHERE task_id = $1", first.id)
        await database.execute("UPDATE events SET at = '2019-01-01Z' WHERE task_id = $1", second.id)
        await sweep(database).rotate_events()
        assert len(await database.fetch(kept)) == 2
        assert await database.fetchval("SELECT floor_seq FROM meta") == 0
    await fold_all(database)
    await sweep(database).rotate_events()
    assert await database.fetch(kept) == []
    assert await database.fetchval("SELECT to_regclass('events_20200101_0000')") is None


async def test_rotation_folds_first(make: Maker, database: Database) -> None:
    await make.one()
    await database.execute("UPDATE events SET at = '2019-01-01Z'")

    async def is_gone() -> bool:
        await sweep(database).rotate_events()
        return not await database.fetchval("SELECT count(*) FROM events")

    await eventually(is_gone)
    assert await database.fetchval("SELECT new FROM task_totals") == 1


async def test_a_task_that_is_being_changed_is_left_for_later(
    make: Maker, tasks: TaskStore, database: Database
) -> None:
    first, second = await make.many(2)
    for task in (first, second):
        await tasks.cancel(None, task.id)
    await database.execute(AGE, [first.id, second.id])
    async with database.transaction() as other:
        # The first of the two rows that a change locks.
        await other.fetch("SELECT FROM tasks WHERE id = $1 FOR UPDATE", first.id)
        assert await sweep(database).delete_finished(10) == 1
        await other.fetch("SELECT FROM task_states WHERE task_id = $1 FOR UPDATE", first.id)
    assert await sweep(database).delete_finished(10) == 1
