"""The numbers of tasks against a replay of the log, whatever is done at once."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskd.domain.forms import TaskPatch
from taskd.domain.model import NewTask, Task
from taskd.domain.outcome import Ending, Outcome, Report
from taskd.errors import Conflict, NotFound
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog
from taskd.store.leases import LeaseStore
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.store.totals import Totals, TotalsStore
from tests.store.replay import Replay, counted
from tests.store.test_log import inside

LATER = datetime(2100, 1, 1, tzinfo=UTC)
SOON = timedelta(milliseconds=1)


class World:
    """A store in use: each method does one thing to a task of its choice, and may find that it can't be done."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        self.database = database
        self.tasks = TaskStore(database)
        self.claims = ClaimStore(database)
        self.leases = LeaseStore(database, grace=0.0)
        self.sweeper = SweepStore(database, retention_days=0, event_retention_hours=24)
        self.totals = TotalsStore(database)
        self.log = EventLog(database)
        self.lease = uuid4()
        self.ids: list[UUID] = []
        self.running: list[Task] = []
        self.looks: list[Totals] = []
        self._chance = chance

    def pick(self) -> UUID:
        return self._chance.choice(self.ids) if self.ids else uuid4()

    async def begin(self) -> None:
        await self.database.execute("TRUNCATE tasks, task_states, events, leases")
        await self.database.execute(
            "UPDATE task_totals SET scheduled = 0, new = 0, running = 0, done = 0, failed = 0, cancelled = 0"
        )
        await self.leases.register(self.lease, "all", "test")
        await self.insert()

    async def insert(self) -> None:
        soon = datetime.now(UTC) + SOON
        runs = [self._chance.choice([None, LATER, soon]) for _ in range(self._chance.randint(1, 4))]
        made = await self.tasks.insert([("ann", NewTask("t", run_at=run_at, max_attempts=2)) for run_at in runs])
        self.ids += [task.id for task in made]

    async def claim(self) -> None:
        self.running += await self.claims.claim(self.lease, ["default"], self._chance.randint(1, 3))

    async def report(self) -> None:
        await self.claims.report_many([Report(task.id, task.attempt, self.lease, 0.5, None) for task in self.running])

    async def finish(self) -> None:
        ended, self.running = self.running, []
        endings = [self._chance.choice(list(Ending)) for _ in ended]
        await self.claims.finish_many(
            [Outcome(t.id, t.attempt, self.lease, e, "1", "E", "m", 0.0) for t, e in zip(ended, endings, strict=True)]
        )

    async def die(self) -> None:
        lease = uuid4()
        await self.leases.register(lease, "worker", "w")
        await self.claims.claim(lease, ["default"], 2)
        await self.leases.end(lease)
        await self.leases.rescue(10)

    async def promote(self) -> None:
        await self.claims.promote()

    async def cancel(self) -> None:
        await self.tasks.cancel(None, self.pick())

    async def retry(self) -> None:
        await self.tasks.retry(None, self.pick())

    async def delay(self) -> None:
        await self.tasks.update(None, self.pick(), TaskPatch({"run_at": LATER}))

    async def hasten(self) -> None:
        await self.tasks.update(None, self.pick(), TaskPatch({"run_at": None}))

    async def rename(self) -> None:
        await self.tasks.update(None, self.pick(), TaskPatch({"title": f"{self._chance.random()}"}))

    async def delete(self) -> None:
        await self.tasks.delete(None, self.pick())

    async def sweep(self) -> None:
        await self.sweeper.delete_finished(2)

    async def hold(self) -> None:
        """Change two tasks in one transaction, the second after a younger transaction did."""
        first, second = sorted((self.pick(), self.pick()))
        async with self.database.transaction() as session:
            within = TaskStore(inside(session))
            await within.update(None, first, TaskPatch({"run_at": LATER}))
            if first != second:
                await self.tasks.cancel(None, second)
            await self.look()
            await within.retry(None, second)

    async def undo(self) -> None:
        """Cancel a task, and roll it back."""
        async with self.database.transaction() as session:
            await TaskStore(inside(session)).cancel(None, self.pick())
            raise Conflict("on second thoughts")

    async def fold(self) -> None:
        await self.sweeper.fold_totals()

    async def look(self) -> None:
        self.looks.append(await self.totals.at((await self.log.place()).end))


THINGS = [name for name, thing in vars(World).items() if asyncio.iscoroutinefunction(thing) and name != "begin"]


async def work(world: World, things: list[str]) -> None:
    for thing in things:
        with suppress(Conflict, NotFound):
            await getattr(world, thing)()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    several=st.lists(st.lists(st.sampled_from(THINGS), min_size=1, max_size=12), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
async def test_the_numbers_are_those_of_the_log_at_every_place(
    database: Database, several: list[list[str]], seed: int
) -> None:
    world = World(database, random.Random(seed))
    await world.begin()
    await asyncio.gather(*(work(world, things) for things in several))
    replay = await Replay.of(database)
    for look in (*world.looks, *[await world.totals.at(key) for key in replay.keys[-20:]]):
        assert look.counts == replay.at(look.key)
    last = await world.totals.at(replay.keys[-1])
    assert last.counts == await counted(database)
    await world.claims.close()
