"""What the stores count, once it is committed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from taskd.domain.forms import TaskPatch
from taskd.domain.model import NewTask, Task
from taskd.domain.outcome import Ending, Outcome
from taskd.errors import Conflict, Invalid
from taskd.metrics.catalog import Catalog
from taskd.store.claims import ClaimStore
from taskd.store.leases import LeaseStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker

OUTCOMES = ("done", "failed", "cancelled")


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def tasks(database: Database, catalog: Catalog) -> TaskStore:
    return TaskStore(database, catalog)


@pytest.fixture
def claims(database: Database, catalog: Catalog) -> ClaimStore:
    return ClaimStore(database, catalog=catalog)


def finished(catalog: Catalog, kind: str = "default") -> list[float]:
    """Return how many are counted as done, failed, cancelled."""
    return [catalog.finished.labels(kind, outcome).value for outcome in OUTCOMES]


async def test_created_tasks_by_kind(tasks: TaskStore, catalog: Catalog) -> None:
    await tasks.insert(
        [("ann", NewTask("t", kind="a")), ("bob", NewTask("t", kind="b")), ("ann", NewTask("t", kind="a"))]
    )
    assert [catalog.created.labels(kind).value for kind in "ab"] == [2, 1]
    with pytest.raises(Invalid):
        await tasks.insert([("ann", NewTask("t", kind="a")), ("ann", NewTask("b\0d", kind="a"))])
    assert catalog.created.labels("a").value == 2


async def test_a_replay_creates_nothing(tasks: TaskStore, catalog: Catalog) -> None:
    for _ in range(2):
        await tasks.insert_once("ann", [NewTask("t"), NewTask("t")], "key", b"f")
    assert catalog.created.labels("default").value == 2


async def test_a_waiting_task_is_cancelled_once(
    make: Maker, tasks: TaskStore, claims: ClaimStore, catalog: Catalog, lease: UUID
) -> None:
    waiting = await make.one()
    for _ in range(2):
        await tasks.cancel(None, waiting.id)
    assert finished(catalog) == [0, 0, 1]
    running = await make.one()
    await claims.claim(lease, ["default"], 1)
    await tasks.cancel(None, running.id)
    assert finished(catalog) == [0, 0, 1]
    await claims.finish(Outcome(running.id, 1, lease, Ending.CANCELLED))
    with pytest.raises(Conflict):
        await tasks.delete(None, (await _run(make, claims, lease)).id)
    assert finished(catalog) == [0, 0, 2]


async def _run(make: Maker, claims: ClaimStore, lease: UUID) -> Task:
    await make.one()
    [task] = await claims.claim(lease, ["default"], 1)
    return task


async def test_a_claim_observes_how_long_each_was_ready(
    make: Maker, tasks: TaskStore, claims: ClaimStore, catalog: Catalog, lease: UUID, database: Database
) -> None:
    kinds = ["old", "dated", "moved", "due", "again"]
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await make.one(kind="old")
    moved = await make.one(kind="moved", run_at=datetime(2100, 1, 1, tzinfo=UTC))
    due = await make.one(kind="due", run_at=datetime(2100, 1, 1, tzinfo=UTC))
    again = await make.one(kind="again")
    await tasks.cancel(None, again.id)
    await database.execute("UPDATE task_states SET ready_at = ready_at - interval '1 h', created_at = '2020-01-01Z'")
    # Ready from now on, however long ago it was to run at the earliest.
    await make.one(kind="dated", run_at=past)
    await tasks.update(None, moved.id, TaskPatch({"run_at": past}))
    await tasks.retry(None, again.id)
    # Ready since it was due, however late that is seen.
    await database.execute("UPDATE task_states SET run_at = now() - interval '2 h' WHERE task_id = $1", due.id)
    await claims.promote()
    assert len(await claims.claim(lease, kinds, 9)) == len(kinds)
    assert await claims.claim(lease, kinds, 9) == []
    waits = {kind: catalog.wait.labels(kind) for kind in kinds}
    assert [wait.count for wait in waits.values()] == [1] * len(kinds)
    hours = {kind: int(wait.sum // 3600) for kind, wait in waits.items()}
    assert hours == {"old": 1, "dated": 0, "moved": 0, "due": 2, "again": 0}


@pytest.mark.parametrize(
    ("ending", "ends", "observed"),
    [
        (Ending.DONE, [1, 0, 0], 1),
        (Ending.FAILED, [0, 1, 0], 1),
        (Ending.CANCELLED, [0, 0, 1], 1),
        (Ending.RETRY, [0, 0, 0], 1),
        (Ending.RELEASED, [0, 0, 0], 0),
    ],
)
async def test_the_end_of_an_attempt(
    make: Maker, claims: ClaimStore, catalog: Catalog, lease: UUID, database: Database,
    ending: Ending, ends: list[float], observed: int,
) -> None:  # fmt: skip
    task = await _run(make, claims, lease)
    await database.execute("UPDATE task_states SET started_at = started_at - interval '1 h'")
    outcome = Outcome(task.id, 1, lease, ending, "1", "E", "m")
    refused = Outcome(task.id, 1, uuid4(), Ending.DONE, "1")
    answers = await claims.finish_many([refused, outcome, outcome])
    assert [answer is not None for answer in answers] == [False, True, False]
    assert await claims.finish(outcome) is None
    assert finished(catalog) == ends
    took = catalog.processing.labels("default")
    assert took.count == observed
    if observed:
        assert 3600 <= took.sum < 4200


async def test_a_release_that_cancels_is_an_end_and_no_processing(
    make: Maker, tasks: TaskStore, claims: ClaimStore, catalog: Catalog, lease: UUID
) -> None:
    task = await _run(make, claims, lease)
    await tasks.cancel(None, task.id)
    await claims.finish(Outcome(task.id, 1, lease, Ending.RELEASED))
    assert finished(catalog) == [0, 0, 1]
    assert catalog.processing.labels("default").count == 0


async def test_rescued_tasks_and_those_that_end_by_it(
    make: Maker, tasks: TaskStore, claims: ClaimStore, catalog: Catalog, lease: UUID, database: Database
) -> None:
    leases = LeaseStore(database, catalog=catalog, grace=0.0)
    await make.one(kind="again")
    await make.one(kind="last", max_attempts=1)
    stopped = await make.one(kind="stop")
    await claims.claim(lease, ["again", "last", "stop"], 3)
    await tasks.cancel(None, stopped.id)
    await leases.end(lease)
    assert await leases.rescue(2) + await leases.rescue(2) + await leases.rescue(2) == 3
    assert catalog.rescued.labels().value == 3
    assert finished(catalog, "again") == [0, 0, 0]
    assert finished(catalog, "last") == [0, 1, 0]
    assert finished(catalog, "stop") == [0, 0, 1]


async def test_delete_returns_the_task_as_it_was(make: Maker, tasks: TaskStore) -> None:
    task = await make.one(payload_json='{"a":1}')
    assert await tasks.delete("ann", task.id) == task
