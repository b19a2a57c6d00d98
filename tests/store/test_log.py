"""What changes leave in the event log, and in what order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.model import Status
from taskd.domain.outcome import Ending, Outcome, Report
from taskd.errors import Conflict
from taskd.service.census import has_ended_an_attempt
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog, Sums
from taskd.store.pool import Database, Session
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker


class Inside:
    """Stands for a database: everything runs in one transaction that the test ends."""

    def __init__(self, session: Session) -> None:
        self.fetch = session.fetch
        self._session = session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        yield self._session


def inside(session: Session) -> Database:
    return cast(Database, Inside(session))


async def log(database: Database) -> dict[UUID, list[int]]:
    """Return each task's versions in the order of the log."""
    found: dict[UUID, list[int]] = defaultdict(list)
    for row in await database.fetch("SELECT task_id, version FROM events ORDER BY xid, seq"):
        found[row["task_id"]].append(row["version"])
    return found


async def test_a_batch_that_meets_a_younger_transactions_row_keeps_its_order(
    make: Maker, tasks: TaskStore, database: Database
) -> None:
    first, second = await make.many(2)
    async with database.transaction() as older:
        # The older transaction gets its id at its first row.
        await TaskStore(inside(older)).update(None, first.id, TaskPatch({"priority": 1}))
        await tasks.update(None, second.id, TaskPatch({"priority": 2}))
        await TaskStore(inside(older)).update(None, second.id, TaskPatch({"priority": 3}))
    assert await log(database) == {first.id: [1, 2], second.id: [1, 2, 3]}
    xids = await database.fetch(
        "SELECT xid::text::bigint AS xid FROM events WHERE task_id = $1 ORDER BY seq", second.id
    )
    assert xids[1]["xid"] == xids[2]["xid"], "the crossing did not happen"


async def test_a_deletion_after_a_younger_change_comes_last(make: Maker, tasks: TaskStore, database: Database) -> None:
    first, second = await make.many(2)
    async with database.transaction() as older:
        await TaskStore(inside(older)).update(None, first.id, TaskPatch({"priority": 1}))
        await tasks.update(None, second.id, TaskPatch({"title": "younger"}))
        await TaskStore(inside(older)).delete(None, second.id)
    assert (await log(database))[second.id] == [1, 2, 3]


async def test_a_progress_batch_across_two_open_transactions(
    make: Maker, tasks: TaskStore, claims: ClaimStore, database: Database, lease: UUID
) -> None:
    await make.many(20)
    batch = await claims.claim(lease, ["default"], 20)
    async with database.transaction() as older, database.transaction() as younger:
        await ClaimStore(inside(older)).report_many([Report(batch[0].id, 1, lease, 0.1, None)])
        await ClaimStore(inside(younger)).report_many([Report(task.id, 1, lease, 0.2, None) for task in batch[10:]])
        await tasks.cancel(None, batch[5].id)
        await ClaimStore(inside(older)).report_many([Report(task.id, 1, lease, 0.3, None) for task in batch[1:10]])
    assert {tuple(versions) for versions in (await log(database)).values()} == {(1, 2, 3), (1, 2, 3, 4)}


async def test_under_random_load_each_version_has_one_event_in_its_place(
    make: Maker, tasks: TaskStore, database: Database
) -> None:
    made = await make.many(5)
    ids = [task.id for task in made]

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for n in range(15):
            task_id = chance.choice(ids)
            try:
                match chance.randrange(4):
                    case 0:
                        await tasks.cancel(None, task_id)
                    case 1:
                        await tasks.retry(None, task_id)
                    case 2:
                        async with database.transaction() as session:
                            # In one order, or two of these could wait for each other.
                            for each in sorted(chance.sample(ids, 2)):
                                patch = TaskPatch({"title": f"{seed}.{n}"})
                                await TaskStore(inside(session)).update(None, each, patch)
                    case _:
                        await tasks.update(None, task_id, TaskPatch({"description": f"{seed}.{n}"}))
            except Conflict:
                pass

    await asyncio.gather(*map(work, range(12)))
    now = {task.id: task.version for task in await tasks.get_many(ids)}
    assert await log(database) == {task_id: list(range(1, version + 1)) for task_id, version in now.items()}
    assert sum(now.values()) > 50


async def test_a_change_that_is_rolled_back_leaves_no_event(make: Maker, database: Database) -> None:
    task = await make.one()
    try:
        async with database.transaction() as session:
            await TaskStore(inside(session)).cancel(None, task.id)
            raise KeyError
    except KeyError:
        pass
    assert await log(database) == {task.id: [1]}


async def test_a_change_past_the_store_is_logged_too(make: Maker, database: Database) -> None:
    made = await make.many(3)
    await database.execute("UPDATE task_states SET priority = 7, version = version + 1, event = 'updated'")
    await database.execute("DELETE FROM task_states")
    assert await log(database) == {task.id: [1, 2, 3] for task in made}


async def test_a_read_tells_the_databases_time(make: Maker, database: Database) -> None:
    log = EventLog(database)
    empty = await log.read(EventKey(2**62, 0), 10)
    await make.one()
    batch = await log.read(LOG_START, 10)
    assert empty.events == ()
    assert empty.now.tzinfo is not None
    assert empty.now < batch.now
    assert all(event.at < batch.now for event in batch.events)


async def some_of_everything(make: Maker, claims: ClaimStore, tasks: TaskStore, lease: UUID) -> None:
    """Have tasks come to most of what can become of them; twelve events."""
    made = await make.many(4, kind="a", priority=3)
    await make.one(run_at=datetime(2100, 1, 1, tzinfo=UTC))
    await claims.claim(lease, ["a"], 3)
    retry = Outcome(made[1].id, 1, lease, Ending.RETRY, None, "E", "m")
    await claims.finish_many([Outcome(made[0].id, 1, lease, Ending.DONE, "1"), retry])
    await tasks.cancel(None, made[2].id)
    await tasks.delete("ann", made[3].id)


async def test_without_content_events_tell_who_counts_and_wakes_the_same(
    make: Maker, claims: ClaimStore, tasks: TaskStore, database: Database, lease: UUID
) -> None:
    await some_of_everything(make, claims, tasks, lease)
    whole = await EventLog(database).read(LOG_START, 100)
    bare = await EventLog(database, content=False).read(LOG_START, 100)
    assert len(whole.events) == len(bare.events) == 12
    for one, other in zip(whole.events, bare.events, strict=True):
        assert (one.key, one.type, one.at, one.was) == (other.key, other.type, other.at, other.was)
        for name in ("id", "kind", "status", "priority", "run_at", "attempt", "version", "started_at"):
            assert getattr(one.task, name) == getattr(other.task, name)
        assert one.task.cancel_requested_at == other.task.cancel_requested_at
        assert has_ended_an_attempt(one) == has_ended_an_attempt(other)
        assert (other.task.title, other.task.payload) == ("", {})


async def test_sums_are_of_the_events_that_wake_and_stop_nobody(
    make: Maker, claims: ClaimStore, tasks: TaskStore, database: Database, lease: UUID
) -> None:
    await some_of_everything(make, claims, tasks, lease)
    await database.execute(
        "UPDATE task_states SET status = 'failed', lease = NULL, finished_at = now(), event = 'failed',"
        " error_type = 'WorkerLost', error_message = '', error_attempt = 1, error_at = now(), updated_at = now()"
        " WHERE status = 'running'"
    )
    log = EventLog(database, content=False)
    each = (await log.read(LOG_START, 100)).events
    for first in range(len(each)):
        for limit in (1, 3, 100):
            asked = each[first:][:limit]
            batch = await log.read_summed(each[first - 1].key if first else LOG_START, limit)
            assert (batch.number, batch.end) == (len(asked), asked[-1].key)
            assert batch.events == tuple(event for event in asked if wakes_or_stops(event))
            summed = [event for event in asked if not wakes_or_stops(event)]
            assert (batch.sums is not None) == bool(summed)
            if batch.sums is not None:
                check_sums(batch.sums, summed)
    assert (await log.read_summed(each[-1].key, 100)).number == 0


def wakes_or_stops(event: Event) -> bool:
    is_stopped = event.task.status is Status.RUNNING and event.task.cancel_requested_at is not None
    return event.task.status in (Status.NEW, Status.SCHEDULED) or is_stopped


def check_sums(sums: Sums, events: list[Event]) -> None:
    steps: Counter[Status] = Counter()
    for event in events:
        assert event.was is not None
        steps[event.was] -= 1
        steps[event.task.status] += event.type is not EventType.DELETED
    assert {status: step for status, step in sums.steps.items() if step} == {s: n for s, n in steps.items() if n}
    ended = [event for event in events if has_ended_an_attempt(event)]
    assert sums.ended == len(ended)
    took = sum((event.at - (event.task.started_at or event.at)).total_seconds() for event in ended)
    assert sums.took == pytest.approx(took)
