"""Pages of tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from taskd.domain.model import ListQuery, NewTask, Status, Task
from taskd.errors import Invalid
from taskd.store.claims import ClaimStore
from taskd.store.pool import Database
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def pages(tasks: TaskStore, query: ListQuery) -> AsyncIterator[tuple[Task, ...]]:
    while True:
        page = await tasks.list(query)
        yield page.tasks
        if page.next_cursor is None:
            return
        query = query._replace(cursor=page.next_cursor)


async def everything(tasks: TaskStore, query: ListQuery) -> list[UUID]:
    return [task.id async for page in pages(tasks, query) for task in page]


@pytest.fixture
async def mixed(make: Maker, tasks: TaskStore, claims: ClaimStore, lease: UUID) -> list[Task]:
    """Forty tasks of two owners and kinds, in all statuses but two, oldest first."""
    for n in range(10):
        for owner in ("ann", "bob"):
            kind = "ab"[n % 2]
            await tasks.insert([(owner, NewTask("t", kind)), (owner, NewTask("t", kind, run_at=LATER))])
    await claims.claim(lease, ["a"], 4)
    for task in (await tasks.list(ListQuery("ann", (Status.NEW,), limit=3))).tasks:
        await tasks.cancel(None, task.id)
    found = (await tasks.list(ListQuery(None, limit=200, newest_first=False))).tasks
    assert len(found) == 40
    assert {task.status.value for task in found} == {"new", "scheduled", "running", "cancelled"}
    return list(found)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("kind", [None, "b"])
@pytest.mark.parametrize("statuses", [(), (Status.NEW,), (Status.CANCELLED, Status.RUNNING, Status.SCHEDULED)])
@pytest.mark.parametrize("owner", [None, "ann"])
async def test_pages_together_are_the_list(
    tasks: TaskStore,
    mixed: list[Task],
    owner: str | None,
    statuses: tuple[Status, ...],
    kind: str | None,
    newest_first: bool,
) -> None:
    expected = [
        task.id
        for task in (reversed(mixed) if newest_first else mixed)
        if owner in (None, task.owner) and kind in (None, task.kind) and (not statuses or task.status in statuses)
    ]
    assert expected
    query = ListQuery(owner, statuses, kind, limit=3, newest_first=newest_first)
    assert await everything(tasks, query) == expected


@pytest.mark.parametrize("statuses", [(), tuple(Status)])
async def test_times_cut_the_list_on_both_sides(
    tasks: TaskStore, mixed: list[Task], statuses: tuple[Status, ...]
) -> None:
    after, before = mixed[5].created_at, mixed[30].created_at
    expected = {task.id for task in mixed if after < task.created_at < before}
    query = ListQuery(None, statuses, created_after=after, created_before=before, limit=7)
    assert set(await everything(tasks, query)) == expected


async def test_a_list_of_exactly_one_page_has_no_next(make: Maker, tasks: TaskStore) -> None:
    await make.many(5)
    assert (await tasks.list(ListQuery("ann", limit=5))).next_cursor is None
    assert (await tasks.list(ListQuery("ann", limit=4))).next_cursor is not None
    assert (await tasks.list(ListQuery("nobody"))).tasks == ()


@pytest.mark.parametrize("cursor", ["garbage", "of another"])
async def test_a_cursor_that_is_none_of_this_list_is_refused(make: Maker, tasks: TaskStore, cursor: str) -> None:
    await make.many(2)
    if cursor == "of another":
        cursor = (await tasks.list(ListQuery("ann", limit=1))).next_cursor or ""
    with pytest.raises(Invalid, match="cursor: "):
        await tasks.list(ListQuery("ann", kind="other", cursor=cursor))


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("statuses", [(), (Status.NEW,)])
async def test_inserts_and_deletes_meanwhile_neither_repeat_nor_skip(
    make: Maker, tasks: TaskStore, newest_first: bool, statuses: tuple[Status, ...]
) -> None:
    there = [task.id for task in await make.many(30)]
    stay = [task_id for n, task_id in enumerate(there) if n % 5]
    gone = [task_id for n, task_id in enumerate(there) if n % 5 == 0]
    seen: list[UUID] = []
    async for page in pages(tasks, ListQuery("ann", statuses, limit=4, newest_first=newest_first)):
        seen += [task.id for task in page]
        await make.many(2)
        if gone:
            await tasks.delete(None, gone.pop())
        if len(seen) > 200:
            break
    assert len(seen) == len(set(seen))
    kept = [task_id for task_id in seen if task_id in stay]
    assert kept == (stay[::-1] if newest_first else stay)


async def test_rows_of_the_view_are_in_the_order_of_the_fields(database: Database, make: Maker) -> None:
    await make.one()
    [row] = await database.fetch("SELECT * FROM task_rows")
    columns = [name for name in row.keys() if not name.startswith("error_")]  # noqa: SIM118
    columns.insert(15, "error")
    fields = list(Task.__dataclass_fields__)
    renamed = {"payload_json": "payload", "result_json": "result"}
    assert columns == [renamed.get(name, name) for name in fields]
