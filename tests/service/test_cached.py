"""Reads through the cache that race changes: held open where a database would be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.forms import TaskPatch
from taskd.domain.model import ListQuery, NewTask, Status, User
from taskd.errors import Conflict, NotFound, Rejected, StaleVersion, Unavailable
from taskd.service.cached import CachedReads, CachedTasks
from taskd.service.views import page_view
from tests.service.slow_store import ANN, BEN, ONE, ROOT, TWO, World
from tests.ws.serving import AT, make_task


@pytest.fixture
def world() -> World:
    found = World()
    found.store.put(make_task("ann", number=1))
    found.store.put(make_task("ben", number=2))
    return found


async def test_a_task_is_loaded_once_for_all_who_ask(world: World) -> None:
    assert [await world.version() for _ in range(3)] == [1, 1, 1]
    assert (world.store.reads, world.counted()) == (1, (2, 1, 0))
    assert (await world.reads.task(ROOT, ONE)).body == (await world.reads.task(ANN, ONE)).body
    world.now += 30
    await world.version()
    assert world.counted() == (4, 2, 0)


async def test_another_owners_task_is_not_found_cached_or_not(world: World) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            await world.version(ONE, BEN)
    await world.version(ONE, ANN)
    with pytest.raises(NotFound):
        await world.version(ONE, BEN)
    assert await world.version(TWO, BEN) == 1


async def test_those_who_miss_together_share_one_load(world: World) -> None:
    world.store.held = []
    asked = [asyncio.create_task(world.version()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    [gate] = world.store.held
    gate.set()
    assert await asyncio.gather(*asked) == [1] * 5
    assert world.counted() == (0, 1, 4)


async def test_a_load_that_raced_a_change_is_neither_kept_nor_joined(world: World) -> None:
    world.store.held = held = []
    before = asyncio.create_task(world.version())
    await asyncio.sleep(0)
    await world.tasks.update(ANN, ONE, TaskPatch({"title": "new"}))
    after = asyncio.create_task(world.version())
    await asyncio.sleep(0)
    assert len(held) == 2, "who asks after the change has a load of its own"
    for gate in reversed(held):
        gate.set()
    assert (await before, await after) == (1, 2)
    world.store.held = None
    assert await world.version() == 2


Change = Callable[[CachedTasks, User], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "update": lambda tasks, user: tasks.update(user, ONE, TaskPatch({"title": "changed"})),
    "cancel": lambda tasks, user: tasks.cancel(user, ONE),
    "retry": lambda tasks, user: tasks.retry(user, ONE),
    "delete": lambda tasks, user: tasks.delete(user, ONE),
}
LISTS = [
    ListQuery(owner, statuses)
    for owner in ("ann", None)
    for statuses in ((), (Status.NEW,), (Status.CANCELLED,), (Status.NEW, Status.CANCELLED))
]


async def is_fresh(world: World, lists: Sequence[ListQuery]) -> bool:
    """Return whether all reads give what the store has."""
    for query in lists:
        fresh = page_view(await world.store.list(ROOT, query))
        if (await world.reads.page(ANN, query)).body != fresh.body:
            return False
    try:
        return await world.version() == world.store.tasks[ONE].version
    except NotFound:
        return ONE not in world.store.tasks


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("user", [ANN, ROOT], ids=["owner", "admin"])
async def test_a_change_is_seen_by_every_read_after_it(world: World, change: Change, user: User) -> None:
    assert await is_fresh(world, LISTS)
    await change(world.tasks, user)
    assert await is_fresh(world, LISTS)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_whose_answer_was_lost_is_seen_too(world: World, change: Change) -> None:
    assert await is_fresh(world, LISTS)
    world.store.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await change(world.tasks, ANN)
    world.store.error = None
    assert await is_fresh(world, LISTS)


async def test_new_tasks_are_in_the_lists_at_once(world: World) -> None:
    assert len(await world.titles("ann", "new")) == 1
    await world.tasks.create(ANN, NewTask("second"))
    assert len(await world.titles("ann", "new")) == 2
    await world.tasks.create_many(ANN, [NewTask("third"), NewTask("fourth")])
    assert len(await world.titles("ann", "new")) == 4
    assert len(await world.titles(None)) == 5


async def test_a_change_of_anothers_task_empties_nothing(world: World) -> None:
    await world.version()
    await world.titles()
    world.store.refusal = NotFound("none")
    with pytest.raises(NotFound):
        await world.tasks.cancel(BEN, ONE)
    assert await world.version() == 1
    await world.titles()
    assert (world.counted(), world.counted("list")) == ((1, 1, 0), (1, 1, 0))


@pytest.mark.parametrize("refusal", [Conflict("it is done"), StaleVersion("it is 2"), NotFound("none")], ids=repr)
@pytest.mark.parametrize("user", [ANN, ROOT], ids=["owner", "admin"])
async def test_who_was_told_of_a_later_state_reads_it(world: World, refusal: Rejected, user: User) -> None:
    """Another process has changed the task, and the refusal is the first that is heard of it."""
    assert await is_fresh(world, LISTS)
    if isinstance(refusal, NotFound):
        del world.store.tasks[ONE]
    else:
        world.store.put(replace(world.store.tasks[ONE], version=2, title="of another process"))
    world.store.refusal = refusal
    with pytest.raises(type(refusal)):
        await world.tasks.update(user, ONE, TaskPatch({"title": "x"}))
    assert await is_fresh(world, [query for query in LISTS if query.owner == "ann"] if user is ANN else [])


async def test_a_list_that_shows_what_is_gone_ends_with_the_404_though_the_task_is_not_kept(world: World) -> None:
    assert await world.titles("ann") == ["Täsk"]
    del world.store.tasks[ONE]
    world.store.refusal = NotFound("none")
    with pytest.raises(NotFound):
        await world.tasks.cancel(ANN, ONE)
    assert await world.titles("ann") == []


@pytest.mark.parametrize("refusal", [Conflict("it is done"), NotFound("none")], ids=repr)
async def test_calls_that_are_refused_empty_no_list_of_others(world: World, refusal: Rejected) -> None:
    await world.titles(None)
    await world.titles("ben")
    world.store.refusal = refusal
    for _ in range(5):
        with pytest.raises(type(refusal)):
            await world.tasks.cancel(ANN, ONE)
    await world.titles(None)
    await world.titles("ben")
    assert world.counted("list") == (2, 2, 0)


async def test_one_owners_change_leaves_the_lists_of_another(world: World) -> None:
    await world.titles("ben")
    await world.tasks.create(ANN, NewTask("a"))
    await world.tasks.update(ANN, ONE, TaskPatch({"title": "b"}))
    await world.titles("ben")
    assert world.counted("list") == (1, 1, 0)


def event(type_: EventType, status: Status, was: Status | None, owner: str = "ann") -> Event:
    return Event(EventKey(7, 1), type_, make_task(owner, status=status), AT, was)


async def test_the_list_of_new_tasks_outlives_what_happens_to_running_ones(world: World) -> None:
    await world.titles("ann", "new")
    world.reads.observe([event(EventType.PROGRESS, Status.RUNNING, Status.RUNNING)])
    world.reads.observe([event(EventType.DONE, Status.DONE, Status.RUNNING)])
    await world.titles("ann", "new")
    assert world.counted("list") == (1, 1, 0)
    world.reads.observe([event(EventType.STARTED, Status.RUNNING, Status.NEW)])
    await world.titles("ann", "new")
    assert world.counted("list") == (1, 2, 0)


async def test_a_load_of_the_log_before_is_not_joined(world: World) -> None:
    world.store.held = held = []
    before = asyncio.create_task(world.version())
    await asyncio.sleep(0)
    world.store.put(replace(world.store.tasks[ONE], version=5))
    world.reads.begin_anew()
    after = asyncio.create_task(world.version())
    await asyncio.sleep(0)
    for gate in held:
        gate.set()
    assert (await before, await after, await world.version()) == (1, 5, 5)


async def test_what_the_log_tells_of_a_change_made_here_is_no_news(world: World) -> None:
    task = await world.tasks.update(ANN, ONE, TaskPatch({"title": "new"}))
    await world.version()
    await world.titles()
    echo = replace(event(EventType.UPDATED, Status.NEW, Status.NEW), task=task)
    world.reads.observe([echo])
    await world.version()
    await world.titles()
    assert (world.counted(), world.counted("list")) == ((1, 1, 0), (1, 1, 0))
    # The same change told again, or the next one, is of somebody else.
    world.store.put(replace(task, version=3))
    world.reads.observe([replace(echo, task=replace(task, version=3))])
    assert await world.version() == 3
    assert world.counted("list") == (1, 1, 0)
    await world.titles()
    assert world.counted("list") == (1, 2, 0)


async def test_neither_are_earlier_versions_nor_tasks_made_together(world: World) -> None:
    first = world.store.tasks[ONE]
    for title in ("second", "third"):
        last = await world.tasks.update(ANN, ONE, TaskPatch({"title": title}))
    many = await world.tasks.create_many(ANN, [NewTask("a"), NewTask("b")])
    await world.version()
    await world.titles()
    told = [replace(first, version=2), last, *many]
    world.reads.observe([replace(event(EventType.UPDATED, Status.NEW, Status.NEW), task=task) for task in told[:2]])
    world.reads.observe([replace(event(EventType.CREATED, Status.NEW, None), task=task) for task in told[2:]])
    await world.version()
    await world.titles()
    assert (world.counted(), world.counted("list")) == ((1, 1, 0), (1, 1, 0))


async def test_a_deletion_made_here_is_no_news_either(world: World) -> None:
    await world.tasks.delete(ANN, ONE)
    await world.titles()
    gone = replace(event(EventType.DELETED, Status.NEW, Status.NEW), task=make_task("ann", number=1, version=2))
    world.reads.observe([gone])
    await world.titles()
    assert world.counted("list") == (1, 1, 0)


async def test_a_log_that_begins_anew_empties_the_cache(world: World) -> None:
    await world.version()
    await world.titles()
    await world.tasks.update(ANN, ONE, TaskPatch({"title": "new"}))
    world.store.put(replace(world.store.tasks[ONE], version=1, title="restored"))
    world.reads.begin_anew()
    assert await world.version() == 1
    assert await world.titles() == ["restored"]
    # There, the second version is another one than was made here.
    world.store.put(replace(world.store.tasks[ONE], version=2))
    world.reads.observe([replace(event(EventType.UPDATED, Status.NEW, Status.NEW), task=world.store.tasks[ONE])])
    assert await world.version() == 2


async def test_without_a_cache_everything_is_loaded_and_nothing_counted(world: World) -> None:
    reads = CachedReads(world.store, None, world.catalog)
    tasks = CachedTasks(world.store, reads)
    await reads.task(ANN, ONE)
    await tasks.cancel(ANN, ONE)
    assert (await reads.task(ANN, ONE)).etag == "2"
    reads.observe([event(EventType.UPDATED, Status.NEW, Status.NEW)])
    reads.begin_anew()
    assert world.counted() == (0, 0, 0)


ACTION = st.one_of(st.tuples(st.just("ask")), st.tuples(st.just("change")), st.tuples(st.just("land"), st.integers(0)))


@settings(deadline=None, max_examples=300)
@given(st.lists(ACTION, max_size=25))
def test_no_order_of_reads_and_changes_gives_a_state_from_before_an_answer(actions: list[tuple[str, int]]) -> None:
    async def play() -> None:
        world = World()
        world.store.put(make_task("ann", number=1))
        world.store.held = held = []
        asked: list[tuple[int, asyncio.Task[int]]] = []
        for action, *which in actions:
            if action == "ask":
                asked.append((world.store.tasks[ONE].version, asyncio.create_task(world.version())))
            elif action == "change":
                await world.tasks.update(ANN, ONE, TaskPatch({"title": "new"}))
            elif held:
                held.pop(which[0] % len(held)).set()
            for _ in range(4):
                await asyncio.sleep(0)
        while held:
            held.pop().set()
            await asyncio.sleep(0)
        for at_least, task in asked:
            assert await task >= at_least
        world.store.held = None
        assert await world.version() == world.store.tasks[ONE].version

    asyncio.run(play())
