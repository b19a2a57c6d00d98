"""The feed on a real log: what it hands on, what it remembers, what it does when the database is another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from taskd.clock import monotonic
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.model import NewTask
from taskd.errors import Invalid
from taskd.runtime.supervisor import Supervisor
from taskd.service.feed import Delay, LogFeed
from taskd.service.ports import Resume
from taskd.store.events import Batch, EventLog
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore
from tests.waiting import eventually
from tests.ws.serving import AT, make_task


class WatchedLog(EventLog):
    """A log that remembers whether it ever said that events wait."""

    said_pending = False

    async def read(self, after: EventKey, limit: int) -> Batch:
        batch = await super().read(after, limit)
        self.said_pending = self.said_pending or batch.pending
        return batch


class World:
    """A feed, a store that writes to its log, and what the feed handed on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.store = TaskStore(self.database)
        self.supervisor = Supervisor()
        self.log = WatchedLog(self.database)
        # An hour between polls: whatever is seen was asked for.
        self.feed = LogFeed(self.log, self.supervisor, poll=3600)
        self.seen: list[Event] = []
        self.feed.subscribe(self.seen.extend)

    async def create(self, title: str) -> None:
        await self.store.insert([("ann", NewTask(title=title))])
        self.feed.wake()

    @property
    def titles(self) -> list[str]:
        return [event.task.title for event in self.seen]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    found = World(database_url)
    await found.database.open()
    yield found
    await found.feed.stop()
    await found.supervisor.stop()
    await found.database.close()


async def test_it_begins_at_the_logs_end_and_hands_on_what_comes(world: World) -> None:
    await world.create("before")
    await world.feed.start()
    await world.create("first")
    await world.create("second")
    await eventually(lambda: world.titles == ["first", "second"])
    assert world.feed.position == world.seen[-1].key


async def test_nobody_reads_what_listeners_have_not_been_handed(world: World) -> None:
    await world.create("before")
    await world.feed.start()
    await world.create("handed on")
    await eventually(lambda: world.titles == ["handed on"])
    await world.feed.stop()
    await world.create("not yet")
    # From before the ring, so it is the log itself that is read.
    assert [event.task.title for event in await world.feed.read(LOG_START, 10)] == ["before", "handed on"]


async def test_an_event_behind_an_open_transaction_comes_once_it_ends(world: World) -> None:
    await world.feed.start()
    holder = await asyncpg.connect(world.url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT pg_current_xact_id()")
    await world.create("held back")
    await eventually(lambda: world.log.said_pending)
    assert world.titles == []
    await transaction.rollback()
    await holder.close()
    # Nothing wakes the feed, and its poll is an hour away: it looks again because it knows that events wait.
    await eventually(lambda: world.titles == ["held back"])


async def test_a_listener_that_left_hears_nothing(world: World) -> None:
    late: list[Event] = []
    leave = world.feed.subscribe(late.extend)
    await world.feed.start()
    leave()
    leave()
    await world.create("alone")
    await eventually(lambda: world.titles == ["alone"])
    assert late == []


async def test_reading_the_past_gives_the_same_from_the_ring_and_from_the_database(world: World) -> None:
    start = (await world.log.place()).end
    await world.create("old")
    await world.feed.start()
    for title in ("a", "b", "c"):
        await world.create(title)
    await eventually(lambda: len(world.seen) == 3)
    assert list(await world.feed.read(world.seen[0].key, 10)) == world.seen[1:]
    assert [event.task.title for event in await world.feed.read(start, 10)] == ["old", "a", "b", "c"]
    assert [event.task.title for event in await world.feed.read(start, 2)] == ["old", "a"]


async def test_a_cursor_of_this_log_is_recovered(world: World) -> None:
    await world.feed.start()
    await world.create("a")
    await eventually(lambda: len(world.seen) == 1)
    key = world.seen[0].key
    assert await world.feed.resume(world.feed.cursor(key)) == Resume(key, recovered=True)
    older = EventKey(key.xid - 1, 5)
    assert await world.feed.resume(world.feed.cursor(older)) == Resume(older, recovered=True)


async def test_a_cursor_of_another_log_or_of_the_future_or_of_the_forgotten_past_is_not(world: World) -> None:
    await world.feed.start()
    await world.create("a")
    await eventually(lambda: len(world.seen) == 1)
    here = Resume(world.feed.position, recovered=False)
    foreign = encode_log_cursor(LogCursor(b"8 bytes!", world.feed.position))
    assert await world.feed.resume(foreign) == here
    future = EventKey(world.feed.position.xid + 1000, 1)
    assert await world.feed.resume(world.feed.cursor(future)) == here
    async with world.database.transaction() as session:
        await session.execute("UPDATE meta SET floor_xid = $1::text::xid8, floor_seq = 0", str(here.key.xid - 1))
    past = EventKey(here.key.xid - 2, 1)
    assert await world.feed.resume(world.feed.cursor(past)) == here


async def test_garbage_is_no_cursor(world: World) -> None:
    await world.feed.start()
    with pytest.raises(Invalid, match="after"):
        await world.feed.resume("garbage")


async def test_another_log_in_the_same_place_begins_anew_and_says_so(world: World) -> None:
    await world.feed.start()
    await world.create("a")
    await eventually(lambda: len(world.seen) == 1)
    old = world.feed.cursor(world.feed.position)
    begun_anew = asyncio.Event()
    world.feed.on_reset(begun_anew.set)
    async with world.database.transaction() as session:
        await session.execute("UPDATE meta SET uuid = gen_random_uuid()")
    world.feed.doubt()
    async with asyncio.timeout(30):
        await begun_anew.wait()
    assert (await world.feed.resume(old)).recovered is False
    await world.create("b")
    await eventually(lambda: world.titles == ["a", "b"])


async def test_a_doubt_that_proves_wrong_changes_nothing(world: World) -> None:
    await world.feed.start()
    world.feed.on_reset(lambda: pytest.fail("it is the same log"))
    await world.create("a")
    world.feed.doubt()
    await world.create("b")
    await eventually(lambda: world.titles == ["a", "b"])


class SlowAnswer(EventLog):
    """A log whose answer is on its way for a second, by the process's clock."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.late = 0.0
        self.slow = False

    def clock(self) -> float:
        return monotonic() + self.late

    async def read(self, after: EventKey, limit: int) -> Batch:
        batch = await super().read(after, limit)
        self.late += self.slow
        return batch


async def test_an_events_age_includes_the_time_that_its_reading_took(world: World) -> None:
    log = SlowAnswer(world.database)
    feed = LogFeed(log, world.supervisor, clock=log.clock)
    ages: list[float] = []
    feed.subscribe(lambda events: ages.extend(feed.age(event.at) for event in events))
    await feed.start()
    await eventually(lambda: feed._ahead is not None)
    await feed.stop()
    await feed.run_once()
    log.slow = True
    await world.store.insert([("ann", NewTask("t"))])
    await feed.run_once()
    assert len(ages) == 1
    assert 1 <= ages[0] < 60


def read(low: int, high: int, *, pending: bool = True) -> Batch:
    return Batch((), pending, datetime.now(UTC), low, high)


def test_the_delay_runs_from_when_something_was_first_left_behind() -> None:
    delay = Delay()
    delay.read(10.0, read(5, 5, pending=False), complete=True)
    assert delay.seconds(99.0) == 0
    # One transaction stays open, others come and go.
    for number in range(3):
        delay.read(20.0 + number, read(5, 9 + number), complete=True)
    assert delay.seconds(25.0) == 5
    # It ended. What others hold back now may have been committed right after the first look.
    delay.read(30.0, read(9, 14), complete=True)
    assert delay.seconds(30.5) == 9.5
    delay.read(31.0, read(14, 14, pending=False), complete=True)
    assert delay.seconds(40.0) == 0


def test_the_delay_runs_on_through_an_outage_until_all_is_read() -> None:
    delay = Delay()
    delay.failed(10.0)
    delay.failed(15.0)
    assert delay.seconds(20.0) == 10
    event = Event(EventKey(6, 1), EventType.CREATED, make_task(), AT)
    delay.read(20.0, Batch((event,), False, AT, 9, 9), complete=False)
    assert delay.seconds(21.0) == 11, "there is more to read"
    delay.read(21.0, read(9, 9, pending=False), complete=True)
    assert delay.seconds(22.0) == 0


def test_a_reader_that_does_not_keep_up_is_as_late_as_what_it_has_not_got_to() -> None:
    delay = Delay()
    events = [Event(EventKey(xid, 1), EventType.CREATED, make_task(), AT) for xid in (6, 7, 9)]
    delay.read(10.0, Batch((events[0],), False, AT, 9, 9), complete=False)
    delay.read(12.0, Batch((events[1],), False, AT, 12, 12), complete=False)
    assert delay.seconds(13.0) == 3
    delay.read(14.0, Batch((events[2],), False, AT, 12, 12), complete=False)
    assert delay.seconds(15.0) == 3


def test_transactions_that_overlap_for_ever_keep_the_delay_at_their_length() -> None:
    """One begins every 20 s and lasts for 40, so something has always waited for between 20 and 40 seconds."""
    delay = Delay()
    for second in range(400):
        oldest = max(0, (second - 40) // 20 + 1)
        delay.read(float(second), read(oldest, second // 20 + 1), complete=True)
        if second > 60:
            assert 18 <= delay.seconds(float(second)) <= 41, second


def test_what_the_delay_keeps_is_bounded() -> None:
    delay = Delay()
    for number in range(200_000):
        delay.read(number * 0.1, read(5, 10 + number), complete=True)
    assert len(delay._looks) < 2000
    assert delay.seconds(20_000.0) == 20_000


async def test_a_read_that_hangs_is_a_delay(world: World) -> None:
    now, asked, answer = [1000.0], asyncio.Event(), asyncio.Event()

    class Hanging(EventLog):
        async def read(self, after: EventKey, limit: int) -> Batch:
            asked.set()
            await answer.wait()
            return await super().read(after, limit)

    feed = LogFeed(Hanging(world.database), world.supervisor, clock=lambda: now[0])
    await feed.start()
    await asked.wait()
    assert feed.behind == 0
    now[0] += 7
    assert feed.behind == 7
    answer.set()
    await eventually(lambda: feed.behind == 0)
    await feed.stop()


async def test_a_database_clock_that_was_set_is_noticed_at_the_next_read(world: World) -> None:
    feed = LogFeed(world.log, world.supervisor, clock=lambda: 1000.0)
    for moment in (AT, AT - timedelta(hours=1), AT + timedelta(hours=1)):
        feed._set_clocks(1000.0, moment)
        assert feed.age(moment) == pytest.approx(0, abs=1e-3)
        assert feed.age(moment - timedelta(seconds=2)) == pytest.approx(2, abs=1e-3)
