"""Claiming, finishing, progress, promotion."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

import taskd.store.claims as claims_module
from taskd.domain.event import LOG_START, Event, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryQuery
from taskd.domain.model import NewTask, Status, Task
from taskd.domain.outcome import Ending, Outcome, Report
from taskd.domain.state import TRANSITIONS, Change
from taskd.store.claims import PROMOTED_AT_ONCE, ClaimStore
from taskd.store.events import EventLog
from taskd.store.leases import LeaseStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker
from tests.waiting import eventually

LATER = datetime(2100, 1, 1, tzinfo=UTC)

CHANGES = {
    Ending.DONE: Change.SUCCEED,
    Ending.FAILED: Change.FAIL,
    Ending.RETRY: Change.RETRY_LATER,
    Ending.CANCELLED: Change.STOP,
    Ending.RELEASED: Change.GIVE_BACK,
}


async def types(tasks: TaskStore, task_id: UUID) -> list[str]:
    return [event.type.value for event in (await tasks.history(None, HistoryQuery(task_id))).events]


@pytest.fixture
async def running(make: Maker, claims: ClaimStore, lease: UUID) -> Task:
    await make.one(payload_json='{"in":1}')
    [task] = await claims.claim(lease, ["default"], 1)
    return task


async def test_two_hundred_claimers_take_each_task_once(
    make: Maker, claims: ClaimStore, leases: LeaseStore, database: Database
) -> None:
    for n in range(10):
        await make.many(100, kind=f"k{n % 3}", priority=n % 4)
    owners = [uuid4() for _ in range(200)]
    for owner in owners:
        await leases.register(owner, "worker", "w")
    claimed: list[tuple[UUID, UUID]] = []

    async def work(own: UUID) -> None:
        while got := await claims.claim(own, ["k0", "k1", "k2"], 3):
            claimed.extend((task.id, own) for task in got)

    await asyncio.gather(*map(work, owners))
    assert Counter(task_id for task_id, _ in claimed).most_common(1)[0][1] == 1
    assert len(claimed) == 1000
    rows = await database.fetch("SELECT task_id, lease, attempt, version FROM task_states")
    assert {(row["task_id"], row["lease"]) for row in rows} == set(claimed)
    assert {(row["attempt"], row["version"]) for row in rows} == {(1, 2)}
    assert await database.fetchval("SELECT count(*) FROM events WHERE type = 'started'") == 1000


async def test_priority_goes_before_age_over_all_kinds(make: Maker, claims: ClaimStore, lease: UUID) -> None:
    a = await make.one("old low", kind="a", priority=-1)
    b = await make.one("old", kind="b")
    c = await make.one("young", kind="a")
    d = await make.one("high", kind="b", priority=100)
    await make.one("other kind", kind="c", priority=100)
    first = await claims.claim(lease, ["a", "b"], 2)
    second = await claims.claim(lease, ["b", "a"], 9)
    assert [task.id for task in first + second] == [d.id, b.id, c.id, a.id]


async def test_a_claim_begins_behind_the_last_one_and_before_what_the_log_says_is_ready(
    make: Maker, database: Database, tasks: TaskStore, lease: UUID
) -> None:
    now = 0.0
    claims = ClaimStore(database, follows=True, clock=lambda: now)
    first, second = await make.many(2)
    # By a clock that stands still, a look from the front takes no time, and the next may be one too: so it goes back.
    assert [task.id for task in await claims.claim(lease, ["default"], 2)] == [first.id, second.id]
    await claims.finish(Outcome(first.id, 1, lease, Ending.FAILED, error_type="E", error_message="m"))
    now = -1.0
    again = await tasks.retry("ann", first.id)
    assert await claims.claim(lease, ["default"], 2) == []
    claims.observe([Event(LOG_START, EventType.UPDATED, again, again.updated_at)])
    assert [task.id for task in await claims.claim(lease, ["default"], 2)] == [first.id]


async def test_a_claimed_task_comes_as_it_is_stored(
    make: Maker, claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    made = await make.one(description="d", payload_json='{"x":1}')
    [task] = await claims.claim(lease, ["default"], 5)
    assert task == replace(
        made, status=Status.RUNNING, attempt=1, version=2, started_at=task.started_at, updated_at=task.updated_at
    )
    assert [task] == await tasks.get_many([task.id])
    assert await types(tasks, task.id) == ["created", "started"]
    assert await claims.claim(lease, ["default"], 5) == []


async def test_nothing_is_claimed_without_a_live_lease(
    make: Maker, claims: ClaimStore, leases: LeaseStore, lease: UUID, database: Database
) -> None:
    await make.one()
    assert await claims.claim(uuid4(), ["default"], 1) == []
    await database.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 ms'")
    assert await claims.claim(lease, ["default"], 1) == []
    await leases.renew(lease)
    assert len(await claims.claim(lease, ["default"], 1)) == 1


async def test_a_claim_that_lost_its_race_looks_again(
    make: Maker, claims: ClaimStore, lease: UUID, database: Database
) -> None:
    high = await make.many(3, kind="a", priority=1)
    low = await make.one(kind="b")
    ids = [task.id for task in high]
    async with database.transaction() as other:
        await other.fetch("SELECT FROM task_states WHERE task_id = ANY ($1::uuid[]) FOR UPDATE", ids)
        # The best three are not to be had, and the fourth was not among them.
        assert [task.id for task in await claims.claim(lease, ["a", "b"], 3)] == [low.id]


async def test_a_claim_that_lost_its_race_finds_lower_priorities_of_the_same_kind(
    make: Maker, database: Database, lease: UUID
) -> None:
    now = 0.0
    claims = ClaimStore(database, follows=True, clock=lambda: now)
    await make.one()
    assert len(await claims.claim(lease, ["default"], 1)) == 1
    # From now on not from the front: what is above the place, and what is behind it, are ranges of their own.
    now = -1.0
    high = await make.many(2, priority=1)
    lowest = await make.one(priority=-1)
    low = await make.many(3)
    async with database.transaction() as other:
        ids = [task.id for task in high]
        await other.fetch("SELECT FROM task_states WHERE task_id = ANY ($1::uuid[]) FOR UPDATE", ids)
        # No more than were asked for, though it looks further.
        assert [task.id for task in await claims.claim(lease, ["default"], 2)] == [task.id for task in low[:2]]
        assert [task.id for task in await claims.claim(lease, ["default"], 9)] == [low[2].id, lowest.id]


async def test_a_task_that_sinks_while_it_is_claimed_hides_none_beside_it(
    make: Maker, database: Database, tasks: TaskStore, lease: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = claims_module._SQL
    # After its snapshot, and before it locks what it saw.
    pause = "WHERE pg_advisory_xact_lock_shared(7)::text = '' AND lease = $1"
    held = sql["claim"]._replace(text=sql["claim"].text.replace("WHERE lease = $1", pause))
    now = 0.0
    claims = ClaimStore(database, follows=True, clock=lambda: now)
    low = await make.one(priority=-5)
    sinks = await make.one(priority=5)
    log = EventLog(database)
    before = (await log.read(LOG_START, 100)).events
    claims.observe(before)
    async with database.transaction() as other:
        await other.fetch("SELECT pg_advisory_xact_lock(7)")
        with monkeypatch.context() as patched:
            patched.setattr(claims_module, "_SQL", {**sql, "claim": held})
            claiming = asyncio.create_task(claims.claim(lease, ["default"], 1))
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await eventually(lambda: database.fetchval(waits))
        await tasks.update("ann", sinks.id, TaskPatch({"priority": -5}))
    assert [(task.id, task.priority) for task in await claiming] == [(sinks.id, -5)]
    claims.observe((await log.read(before[-1].key, 100)).events)
    now = -1.0
    assert [task.id for task in await claims.claim(lease, ["default"], 1)] == [low.id]


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("asked", [False, True])
async def test_each_ending_moves_the_task_as_the_table_says(
    running: Task, claims: ClaimStore, tasks: TaskStore, lease: UUID, ending: Ending, asked: bool
) -> None:
    if asked:
        await tasks.cancel(None, running.id)
    outcome = Outcome(running.id, 1, lease, ending, '{"out":1}', "Boom", "it broke", 60.0)
    status = await claims.finish(outcome)
    [task] = await tasks.get_many([running.id])
    assert task.status is status
    change = Change.STOP if asked and ending is not Ending.DONE else CHANGES[ending]
    assert task.status is TRANSITIONS[change][Status.RUNNING]
    assert task.is_final == (task.finished_at is not None)
    assert task.attempt == (0 if ending is Ending.RELEASED else 1)
    assert task.result == ({"out": 1} if ending is Ending.DONE else None)
    if ending in (Ending.FAILED, Ending.RETRY):
        assert task.error is not None
        assert (task.error.type, task.error.message, task.error.attempt) == ("Boom", "it broke", 1)
        assert task.error.at == task.updated_at
    else:
        assert task.error is None
    if task.status is Status.SCHEDULED:
        assert task.run_at - task.updated_at == timedelta(seconds=60)
    event = "retrying" if task.status is Status.SCHEDULED else task.status.value
    assert (await types(tasks, task.id))[-1] == event
    # Once: the attempt is over.
    assert await claims.finish(outcome) is None


async def test_late_and_foreign_outcomes_are_refused(
    running: Task, claims: ClaimStore, tasks: TaskStore, lease: UUID, leases: LeaseStore
) -> None:
    good = Outcome(running.id, 1, lease, Ending.RETRY, error_type="E", error_message="m")
    other = uuid4()
    await leases.register(other, "worker", "w")
    for bad in (good._replace(lease=other), good._replace(attempt=2), good._replace(task_id=uuid4())):
        assert await claims.finish(bad) is None
        assert not await claims.report(Report(bad.task_id, bad.attempt, bad.lease, 0.5, None))
    assert await tasks.get_many([running.id]) == [running]
    await claims.finish(good)
    await claims.promote()
    assert [task.attempt for task in await claims.claim(lease, ["default"], 1)] == [2]
    # The first attempt's end again, though the same lease now runs the second.
    late, own = await claims.finish_many([good, good._replace(attempt=2, ending=Ending.DONE, result_json="0")])
    assert late is None
    assert own is Status.DONE
    assert [task.result for task in await tasks.get_many([running.id])] == [0]


async def test_of_two_ends_of_one_attempt_in_a_batch_the_first_counts(
    running: Task, claims: ClaimStore, lease: UUID
) -> None:
    done = Outcome(running.id, 1, lease, Ending.DONE, "1")
    first, second = await claims.finish_many([done, done._replace(ending=Ending.CANCELLED)])
    assert (first, second) == (Status.DONE, None)


@pytest.mark.parametrize("others", [0, 2])
async def test_an_error_without_words_is_an_error(
    make: Maker, claims: ClaimStore, tasks: TaskStore, lease: UUID, others: int
) -> None:
    await make.many(1 + others)
    one, *rest = await claims.claim(lease, ["default"], 1 + others)
    ends = [Outcome(task.id, 1, lease, Ending.DONE, "1") for task in rest]
    retry = Outcome(one.id, 1, lease, Ending.RETRY, None, "ValueError", "")
    assert await claims.finish_many([retry, *ends]) == [Status.SCHEDULED, *[Status.DONE] * others]
    [task] = await tasks.get_many([one.id])
    assert task.error is not None
    assert (task.error.type, task.error.message, task.run_at) == ("ValueError", "", task.updated_at)


async def test_many_outcomes_at_once_each_get_their_own_answer(
    make: Maker, claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    await make.many(50)
    batch = await claims.claim(lease, ["default"], 50)
    outcomes = [Outcome(task.id, 1, lease, Ending.DONE, str(n)) for n, task in enumerate(batch)]
    outcomes[7] = outcomes[7]._replace(attempt=9)
    answers = await asyncio.gather(*map(claims.finish, outcomes))
    assert answers == [None if n == 7 else Status.DONE for n in range(50)]
    stored = {task.id: task.result for task in await tasks.get_many([task.id for task in batch])}
    assert stored == {task.id: None if n == 7 else n for n, task in enumerate(batch)}


async def test_one_bad_outcome_does_not_fail_its_neighbours(make: Maker, claims: ClaimStore, lease: UUID) -> None:
    await make.many(3)
    batch = await claims.claim(lease, ["default"], 3)
    results = ["1", '"\0"', "3"]
    answers = await asyncio.gather(
        *(
            claims.finish(Outcome(task.id, 1, lease, Ending.DONE, result))
            for task, result in zip(batch, results, strict=True)
        ),
        return_exceptions=True,
    )
    assert [answer is Status.DONE for answer in answers] == [True, False, True]


async def test_progress_is_stored_and_the_last_of_a_batch_wins(
    running: Task, claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    reports = [Report(running.id, 1, lease, n / 4, f"n{n}") for n in range(1, 4)]
    assert await claims.report_many(reports) == [True] * 3
    [task] = await tasks.get_many([running.id])
    assert (task.progress, task.progress_note, task.version) == (0.75, "n3", 3)
    assert await claims.report(Report(running.id, 1, lease, 1.0, None))
    assert await types(tasks, task.id) == ["created", "started", "progress", "progress"]


async def test_a_new_attempt_begins_without_progress(
    running: Task, claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    await claims.report(Report(running.id, 1, lease, 0.5, "half"))
    await claims.finish(Outcome(running.id, 1, lease, Ending.RETRY, error_type="E", error_message="m"))
    [kept] = await tasks.get_many([running.id])
    assert kept.progress == 0.5
    await claims.promote()
    [again] = await claims.claim(lease, ["default"], 1)
    assert (again.attempt, again.progress, again.progress_note) == (2, None, None)
    assert again.error is not None


async def test_promote_readies_what_is_due_and_says_when_the_next_is(
    make: Maker, claims: ClaimStore, tasks: TaskStore, database: Database
) -> None:
    assert await claims.promote() is None
    due = await make.one(run_at=LATER)
    await make.one(run_at=datetime.now(UTC) + timedelta(hours=1))
    await database.execute("UPDATE task_states SET run_at = now() - interval '1 s' WHERE task_id = $1", due.id)
    wait = await claims.promote()
    assert wait is not None
    assert 3500 < wait <= 3600
    [task] = await tasks.get_many([due.id])
    assert task.status is TRANSITIONS[Change.PROMOTE][Status.SCHEDULED]
    assert (await types(tasks, due.id))[-1] == "updated"


async def test_promote_in_two_processes_moves_each_task_once(
    make: Maker, claims: ClaimStore, database: Database
) -> None:
    for _ in range(3):
        await make.many(500, run_at=LATER)
    await database.execute("UPDATE task_states SET run_at = '2020-01-01'")
    assert await claims.promote() == 0.0
    assert await database.fetchval("SELECT count(*) FROM task_states WHERE status = 'new'") == PROMOTED_AT_ONCE
    await asyncio.gather(*(claims.promote() for _ in range(4)))
    rows = await database.fetch("SELECT status, version FROM task_states")
    assert Counter((row["status"], row["version"]) for row in rows) == {("new", 2): 1500}


async def test_waiting_kinds_are_those_with_ready_tasks(make: Maker, claims: ClaimStore, lease: UUID) -> None:
    assert await claims.waiting_kinds() == []
    for kind in ("b", "a", "b", "c", "d"):
        await make.one(kind=kind)
    await make.one(kind="later", run_at=LATER)
    await claims.claim(lease, ["c"], 1)
    assert await claims.waiting_kinds() == ["a", "b", "d"]


async def test_a_batch_of_claims_and_ends_under_load_never_deadlocks(
    make: Maker, claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    await make.many(200)
    batch = await claims.claim(lease, ["default"], 200)
    backwards = batch[::-1]

    async def report(order: list[Task]) -> None:
        await claims.report_many([Report(task.id, 1, lease, 0.1, None) for task in order])

    await asyncio.gather(*(report(order) for order in (batch, backwards) * 10))
    await asyncio.gather(
        report(backwards), claims.finish_many([Outcome(task.id, 1, lease, Ending.DONE, "0") for task in batch])
    )
    assert {task.status for task in await tasks.get_many([task.id for task in batch])} == {Status.DONE}


async def test_content_of_a_task_is_no_reason_to_refuse_a_claim(
    claims: ClaimStore, tasks: TaskStore, lease: UUID
) -> None:
    await tasks.insert([("ann", NewTask("x" * 200, payload_json='{"k":"' + "y" * 200_000 + '"}'))])
    [task] = await claims.claim(lease, ["default"], 1)
    assert len(task.payload["k"]) == 200_000
