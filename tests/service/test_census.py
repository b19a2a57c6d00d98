"""The census on a real log: always the numbers of the store at the feed's place."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.model import Failure, NewTask, Status
from taskd.domain.outcome import Ending, Outcome
from taskd.errors import Conflict, NotFound
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.service.census import HELD_BACK, LOOK_EVERY, WORKER_LOST, Census, has_ended_an_attempt
from taskd.service.feed import LogFeed
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog, Sums
from taskd.store.leases import LeaseStore
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.store.totals import Totals, TotalsStore
from tests.waiting import eventually
from tests.ws.serving import AT, make_task


class World:
    """A store, and a process that counts along its log."""

    def __init__(self, url: str) -> None:
        self.now = 1000.0
        self.catalog = Catalog()
        self.database = Database(url, catalog=self.catalog)
        self.supervisor = Supervisor()
        self.tasks = TaskStore(self.database)
        self.claims = ClaimStore(self.database)
        self.leases = LeaseStore(self.database)
        self.sweep = SweepStore(self.database, retention_days=30, event_retention_hours=24)
        self.url = url
        self.feed = LogFeed(EventLog(self.database), self.supervisor, poll=0.01, clock=lambda: self.now)
        self.census = self.new_census()

    def new_census(self) -> Census:
        found = Census(TotalsStore(self.database), self.feed, self.supervisor, clock=lambda: self.now)
        self.feed.subscribe(found.observe)
        return found

    async def really(self) -> dict[Status, int]:
        rows = await self.database.fetch("SELECT status, count(*) AS number FROM task_states GROUP BY status")
        counted = {row["status"]: row["number"] for row in rows}
        return {status: counted.get(status.value, 0) for status in Status}

    def is_behind(self) -> bool:
        """Let a moment go by, and return whether something was held back in it."""
        self.now += 0.001
        return self.feed.behind > 0

    async def is_right(self, census: Census | None = None) -> bool:
        return dict((census or self.census).counts) == await self.really()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    found = World(database_url)
    await found.database.open()
    yield found
    await found.census.stop()
    await found.feed.stop()
    await found.supervisor.stop()
    await found.claims.close()
    await found.database.close()


async def something(world: World, chance: random.Random) -> None:
    """Do one thing that may happen to tasks."""
    lease = uuid4()
    match chance.randrange(6):
        case 0 | 1:
            await world.tasks.insert([("ann", NewTask("t", max_attempts=1)) for _ in range(chance.randrange(1, 5))])
        case 2:
            await world.leases.register(lease, "all", "test")
            for task in await world.claims.claim(lease, ["default"], 3):
                ending = chance.choice(list(Ending))
                await world.claims.finish(
                    Outcome(task.id, task.attempt, lease, ending, error_type="E", error_message="m")
                )
        case 3:
            await world.claims.promote()
            await world.sweep.fold_totals()
        case _:
            ids = [row["task_id"] for row in await world.database.fetch("SELECT task_id FROM task_states LIMIT 20")]
            if ids:
                await change(world, chance, chance.choice(ids))


async def change(world: World, chance: random.Random, task_id: UUID) -> None:
    """Change one task as a user does."""
    try:
        match chance.randrange(4):
            case 0:
                await world.tasks.cancel(None, task_id)
            case 1:
                await world.tasks.retry(None, task_id)
            case 2:
                await world.tasks.delete(None, task_id)
            case _:
                at = AT + timedelta(days=chance.choice([-9, 36500]))
                await world.tasks.update(None, task_id, TaskPatch({"run_at": at}))
    except (Conflict, NotFound):
        return


@pytest.mark.parametrize("seed", range(3))
async def test_under_random_load_it_ends_with_the_numbers_of_the_store(world: World, seed: int) -> None:
    chance = random.Random(seed)
    await world.tasks.insert([("ann", NewTask("before")) for _ in range(5)])
    await world.feed.start()
    world.census.start()
    later: list[Census] = []
    for _ in range(10):
        await asyncio.gather(*(something(world, chance) for _ in range(4)))
        # Another one that begins in the midst of it.
        later.append(world.new_census())
        later[-1].start()
    for census in (world.census, *later):
        await eventually(lambda census=census: world.is_right(census))
        await census.stop()


@pytest.mark.parametrize("seed", range(3))
async def test_sums_in_place_of_events_end_with_the_same_numbers(world: World, seed: int) -> None:
    chance = random.Random(seed)
    await world.tasks.insert([("ann", NewTask("before")) for _ in range(5)])
    feeds = []
    for _ in range(10):
        # Each begins in the midst of it, by a feed of its own, behind numbers that others fold meanwhile.
        feed = LogFeed(EventLog(world.database, content=False), world.supervisor, poll=0.01, clock=lambda: world.now)
        census = Census(TotalsStore(world.database), feed, world.supervisor, clock=lambda: world.now)
        feed.subscribe(census.observe)
        feed.sum_for(census)
        await feed.start()
        census.start()
        feeds.append((feed, census))
        await asyncio.gather(*(something(world, chance) for _ in range(4)))
    for feed, census in feeds:
        await eventually(lambda census=census: world.is_right(census))
        await census.stop()
        await feed.stop()


async def test_it_takes_no_sums_before_the_place_of_the_stores_numbers(world: World) -> None:
    await world.feed.start()
    await world.feed.stop()
    assert not world.census.takes_sums
    await world.tasks.insert([("ann", NewTask("t"))])
    await world.sweep.fold_totals()
    await world.census.run_once()
    assert world.census.counts[Status.NEW] == 1
    assert not world.census.takes_sums, "the event of the task that is counted already is yet to come"
    await world.feed.run_once()
    assert world.census.takes_sums
    assert world.census.counts[Status.NEW] == 1
    world.census.begin_anew()
    assert not world.census.takes_sums
    with pytest.raises(RuntimeError):
        world.census.add(Sums(1, LOG_START, {Status.NEW: 1}, 0, 0.0))


async def test_it_waits_for_nothing_and_asks_for_nothing_while_no_task_is_ready(world: World) -> None:
    await world.feed.start()
    assert await world.census.run_once() == LOOK_EVERY
    assert dict(world.census.counts) == dict.fromkeys(Status, 0)
    [task] = await world.tasks.insert([("ann", NewTask("t"))])
    await eventually(lambda: world.census.counts[Status.NEW] == 1)
    # It is known to have just become ready; the database is asked later.
    assert await world.census.run_once() == LOOK_EVERY
    world.now += 1
    assert (await world.census.run_once(), world.census.oldest_ready) == (LOOK_EVERY - 1, 1)
    await world.database.execute("UPDATE task_states SET ready_at = ready_at - interval '1 hour'")
    world.now += 1
    assert await world.census.run_once() == LOOK_EVERY
    first = world.census.oldest_ready
    assert first >= 3600
    world.now += 7
    assert world.census.oldest_ready == pytest.approx(first + 7)
    await world.tasks.cancel(None, task.id)
    await eventually(lambda: world.census.counts[Status.NEW] == 0)
    assert world.census.oldest_ready == 0
    asked = world.catalog.query_seconds.labels("totals.oldest_ready").count
    assert await world.census.run_once() == LOOK_EVERY
    assert world.catalog.query_seconds.labels("totals.oldest_ready").count == asked == 1


async def test_with_another_database_it_begins_anew(world: World) -> None:
    await world.feed.start()
    await world.tasks.insert([("ann", NewTask("t"))])
    await world.census.run_once()
    await eventually(lambda: world.is_right())
    world.census.begin_anew()
    assert not world.census.counts
    await world.census.run_once()
    assert await world.is_right()


def ended(type_: EventType, status: Status, was: Status | None, error: Failure | None = None) -> bool:
    return has_ended_an_attempt(Event(EventKey(1, 1), type_, make_task(status=status, error=error), AT, was))


def test_which_events_end_an_attempt() -> None:
    now, before = Failure("E", "m", 1, AT), Failure("E", "m", 1, AT - timedelta(1))
    assert ended(EventType.DONE, Status.DONE, Status.RUNNING)
    assert ended(EventType.FAILED, Status.FAILED, Status.RUNNING, now)
    assert ended(EventType.CANCELLED, Status.CANCELLED, Status.RUNNING)
    assert ended(EventType.RETRYING, Status.SCHEDULED, Status.RUNNING, now)
    assert not ended(EventType.RETRYING, Status.SCHEDULED, Status.RUNNING), "given back"
    assert not ended(EventType.RETRYING, Status.SCHEDULED, Status.RUNNING, before), "given back"
    assert not ended(EventType.CANCELLED, Status.CANCELLED, Status.NEW)
    assert not ended(EventType.PROGRESS, Status.RUNNING, Status.RUNNING)
    assert not ended(EventType.CREATED, Status.NEW, None)
    lost = Failure(WORKER_LOST, "m", 1, AT)
    assert not ended(EventType.FAILED, Status.FAILED, Status.RUNNING, lost), "nobody knows when"
    assert not ended(EventType.RETRYING, Status.SCHEDULED, Status.RUNNING, lost)


async def test_a_rescue_is_no_end_of_an_attempt(world: World) -> None:
    seen: list[Event] = []
    world.feed.subscribe(seen.extend)
    await world.feed.start()
    [task] = await world.tasks.insert([("ann", NewTask("t"))])
    lease = uuid4()
    await world.leases.register(lease, "all", "test")
    await world.claims.claim(lease, ["default"], 1)
    await world.leases.end(lease)
    assert await world.leases.rescue(10) == 1
    await eventually(lambda: len(seen) == 3)
    assert [has_ended_an_attempt(event) for event in seen] == [False] * 3
    assert seen[-1].task.error is not None
    assert (seen[-1].task.id, seen[-1].task.error.type) == (task.id, WORKER_LOST)


async def test_what_an_open_transaction_holds_back_is_counted_all_the_same(world: World) -> None:
    await world.feed.start()
    await world.census.run_once()
    holder = await asyncpg.connect(world.url)
    async with holder.transaction():
        await holder.fetchval("SELECT pg_current_xact_id()")
        await world.tasks.insert([("ann", NewTask("t")) for _ in range(5)])
        await eventually(world.is_behind)
        assert world.census.counts[Status.NEW] == 0, "not yet: most transactions end soon"
        world.now += HELD_BACK
        await world.census.run_once()
        assert await world.is_right()
        assert world.census.oldest_ready > 0
    await holder.close()
    await eventually(lambda: world.feed.behind == 0)
    assert await world.is_right()


def test_the_average_is_over_attempts_that_ended() -> None:
    census = Census(None, None, Supervisor())  # type: ignore[arg-type]
    assert census.average_processing is None
    task = make_task(status=Status.DONE, started_at=AT - timedelta(seconds=3))
    other = replace(task, started_at=AT - timedelta(seconds=1))
    events = [Event(EventKey(1, n), EventType.DONE, one, AT, Status.RUNNING) for n, one in enumerate((task, other))]
    census.observe(events)
    assert census.average_processing == 2


class Slow(TotalsStore):
    """Numbers that take as long as the test wants."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked = 0
        self.go = asyncio.Event()

    async def at(self, key: EventKey) -> Totals:
        self.asked += 1
        found = await super().at(key)
        await self.go.wait()
        return found


async def test_numbers_of_the_database_before_are_not_taken(world: World) -> None:
    await world.feed.start()
    totals = Slow(world.database)
    census = Census(totals, world.feed, world.supervisor)
    asking = asyncio.create_task(census.run_once())
    await eventually(lambda: totals.asked == 1)
    census.begin_anew()
    totals.go.set()
    await asking
    assert totals.asked == 2


def test_an_event_from_before_there_was_a_was_is_in_the_numbers_already() -> None:
    census = Census(None, None, Supervisor())  # type: ignore[arg-type]
    census._counts = dict.fromkeys(Status, 3)
    census.observe([Event(EventKey(1, 1), EventType.DONE, make_task(status=Status.DONE), AT)])
    assert census.counts == dict.fromkeys(Status, 3)
