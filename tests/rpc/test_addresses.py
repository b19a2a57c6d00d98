"""An upstream's name with several addresses: calls go to all of them, and each may know less than the others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from taskd import Taskd
from taskd.domain.event import EventKey
from taskd.domain.forms import TaskPatch
from taskd.domain.model import ListQuery, NewTask, User
from taskd.rpc.channel import open_channel
from taskd.rpc.feed import RemoteFeed
from taskd.rpc.upstream import RemoteTasks
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Feed
from tests.names import FIRST, SECOND, free_port, naming
from tests.running import embedded
from tests.waiting import eventually

ANN = User("ann")
CALLS = 10


@dataclass
class Pair:
    """Two servers over one database, and what asks them by one name."""

    servers: tuple[Taskd, Taskd]
    tasks: RemoteTasks
    feed: RemoteFeed

    def answered(self, method: str) -> list[int]:
        """Return how many calls of a method each has answered."""
        return [
            int(app.parts.catalog.grpc_requests.labels(f"TaskService/{method}", "OK").value) for app in self.servers
        ]


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()
        servers = [
            await stack.enter_async_context(
                embedded(database_url, role="api", grpc=f"{address}:{port}", cache="memory", cache_ttl=3600)
            )
            for address in (FIRST, SECOND)
        ]
        names = await stack.enter_async_context(naming())
        channel, supervisor = open_channel(f"taskd.test:{port}", names.address), Supervisor()
        one, two = (server.app for server in servers)
        assert one is not None
        assert two is not None
        found = Pair((one, two), RemoteTasks(channel), RemoteFeed(channel, User("gateway"), supervisor))
        yield found
        await found.feed.stop()
        await supervisor.stop()
        await channel.close()


async def _reached(pair: Pair) -> bool:
    """Call until both have answered: a connection is used from the moment that there is one."""
    await pair.tasks.list(ANN, ListQuery("ann"))
    return all(pair.answered("ListTasks"))


async def test_calls_go_to_all_addresses_in_turn(pair: Pair) -> None:
    await eventually(lambda: _reached(pair))
    before = pair.answered("ListTasks")
    for _ in range(CALLS):
        await pair.tasks.list(ANN, ListQuery("ann"))
    assert [now - was for now, was in zip(pair.answered("ListTasks"), before, strict=True)] == [CALLS / 2] * 2


async def test_what_one_has_changed_is_not_read_from_the_others_cache(pair: Pair) -> None:
    await eventually(lambda: _reached(pair))
    task = await pair.tasks.create(ANN, NewTask(title="before"))
    for app in pair.servers:
        # In the cache of both, and neither hears of changes made through the other.
        await app.parts.front.reads.task(ANN, task.id)
        await app.parts.front.reads.page(ANN, ListQuery("ann"))
        await app.parts.feed.stop()  # type: ignore[union-attr]
    for n in range(CALLS):
        # One change and four reads: it falls to each in turn.
        changed = await pair.tasks.update(ANN, task.id, TaskPatch({"title": f"t{n}"}))
        assert [(await pair.tasks.get(ANN, task.id)).version for _ in range(2)] == [changed.version] * 2, n
        assert [(await pair.tasks.list(ANN, ListQuery("ann"))).tasks for _ in range(2)] == [(changed,)] * 2, n


async def test_the_past_is_whole_though_one_has_not_read_it_yet(pair: Pair) -> None:
    await eventually(lambda: _reached(pair))
    ahead, behind = (app.parts.feed for app in pair.servers)
    await behind.stop()  # type: ignore[union-attr]
    pair.feed.start()
    await eventually(lambda: pair.feed.fault is None)
    # From here on, the one has something in its ring, and the other nothing.
    start = max(pair.feed.position, behind.position)
    await pair.feed.stop()
    made = [(await pair.tasks.create(ANN, NewTask(title=f"t{n}"))).id for n in range(3)]
    await eventually(lambda: _has_read(ahead, start, made))
    asked = pair.answered("ListEvents")
    for _ in range(4):
        events = await pair.feed.read(start, 100, ahead.position)
        assert [event.task.id for event in events] == made
    assert [now - was for now, was in zip(pair.answered("ListEvents"), asked, strict=True)] == [2, 2]


async def _has_read(feed: Feed, after: EventKey, made: list[UUID]) -> bool:
    return [event.task.id for event in await feed.read(after, 100)] == made
