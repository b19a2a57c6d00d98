"""The log of a taskd elsewhere: what is handed on, what happens when the watch breaks, and what is read of the past."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from taskd.domain.event import LOG_START, Event, EventKey
from taskd.domain.model import User
from taskd.errors import Invalid, Unavailable
from taskd.rpc.channel import open_channel
from taskd.rpc.feed import MOST, RemoteFeed
from taskd.rpc.messages import event_message, timestamp
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Resume
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.peer import Peer, cursor, event_of_title, serving
from tests.waiting import eventually
from tests.ws.serving import EPOCH

OTHER = b"another!"


@dataclass
class World:
    """A feed, the peer that it follows, and what it handed on."""

    peer: Peer
    feed: RemoteFeed
    supervisor: Supervisor
    seen: list[Event] = field(default_factory=list)
    resets: int = 0
    now: float = 0.0

    def reset(self) -> None:
        self.resets += 1

    @property
    def numbers(self) -> list[int]:
        return [event.key.seq for event in self.seen]


async def world_of(peer: Peer, silence: float) -> AsyncIterator[World]:
    channel, supervisor = open_channel(peer.address), Supervisor()
    feed = RemoteFeed(channel, User("gateway"), supervisor, silence=silence, clock=lambda: found.now)
    found = World(peer, feed, supervisor)
    found.feed.subscribe(found.seen.extend)
    found.feed.on_reset(found.reset)
    found.feed.start()
    yield found
    await found.feed.stop()
    await supervisor.stop()
    await channel.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving() as found:
        yield found


@pytest.fixture
async def world(peer: Peer) -> AsyncIterator[World]:
    async for found in world_of(peer, silence=60):
        yield found


def events(first: int, last: int) -> list[Event]:
    return [event_of_title(seq) for seq in range(first, last + 1)]


def listed(found: list[Event], **more: object) -> pb.ListEventsResponse:
    """Return the answer to `ListEvents`."""
    entries = [event_message(event, cursor(event.key.seq)) for event in found]
    return pb.ListEventsResponse(**{"events": entries, "recovered": True, **more})  # type: ignore[arg-type]


async def test_before_the_first_contact_nothing_is_known(world: World) -> None:
    assert (world.feed.fault, world.feed.epoch, world.feed.now()) == ("no contact yet", b"", None)
    with pytest.raises(Unavailable):
        await world.feed.resume(cursor(3))
    with pytest.raises(Invalid):
        await world.feed.resume("no cursor")
    assert world.peer.calls == []
    call = await world.peer.watch()
    assert (call.request.after, call.request.all_owners) == ("", True)
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    assert (world.feed.epoch, world.feed.position) == (EPOCH, EventKey(7, 5))
    # Whoever came before that has to come back, and is told that he may have missed something.
    assert world.resets == 1
    assert await world.feed.resume(cursor(5)) == Resume(EventKey(7, 5), recovered=True)


async def test_what_comes_is_handed_on_and_kept_for_who_was_away(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    call.tell(*events(6, 7))
    call.tell(*events(8, 8))
    await eventually(lambda: world.numbers == [6, 7, 8])
    assert world.feed.position == EventKey(7, 8)
    assert world.seen == events(6, 8)
    assert await world.feed.read(EventKey(7, 6), 10) == events(7, 8)
    assert await world.feed.read(EventKey(7, 5), 2) == events(6, 7)
    assert await world.feed.read(EventKey(7, 8), 10) == []
    assert await world.feed.resume(world.feed.cursor(EventKey(7, 6))) == Resume(EventKey(7, 6), recovered=True)
    assert world.peer.calls == [], "none of this is asked of the upstream"


async def test_a_watch_that_breaks_goes_on_where_it_was(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskd.feed")
    call = await world.peer.watch()
    call.greet(5)
    call.tell(*events(6, 7))
    for last, code in ((7, grpc.StatusCode.UNAVAILABLE), (9, grpc.StatusCode.RESOURCE_EXHAUSTED)):
        await eventually(lambda last=last: world.numbers == list(range(6, last + 1)))
        call.end(code)
        call = await world.peer.watch()
        assert call.request.after == cursor(last)
        await eventually(lambda: world.feed.fault is not None)
        call.greet(last, recovered=True)
        call.tell(*events(last + 1, last + 2))
    await eventually(lambda: world.numbers == [6, 7, 8, 9, 10, 11])
    assert world.resets == 1, "only the first contact"
    # The ring has no gap either.
    assert await world.feed.read(EventKey(7, 5), 10) == events(6, 11)
    told = [record.getMessage() for record in caplog.records]
    follows, lost = "following the log of the upstream", "the upstream's log can't be followed: as the test asked"
    assert told == [follows, lost, follows, lost, follows]


@pytest.mark.parametrize(("recovered", "epoch"), [(False, EPOCH), (False, OTHER), (True, OTHER)])
async def test_another_log_or_a_gap_makes_all_begin_anew(world: World, recovered: bool, epoch: bytes) -> None:
    call = await world.peer.watch()
    call.greet(5)
    call.tell(*events(6, 7))
    await eventually(lambda: world.numbers == [6, 7])
    call.end(grpc.StatusCode.UNAVAILABLE)
    call = await world.peer.watch()
    call.greet(3, recovered=recovered, epoch=epoch)
    await eventually(lambda: world.resets == 2)
    assert (world.feed.epoch, world.feed.position) == (epoch, EventKey(7, 3))
    # What was before is no part of it: a cursor of that time is for the upstream to judge.
    world.peer.answers["ListEvents"] = listed([], recovered=False, cursor=cursor(3, epoch))
    assert await world.feed.resume(cursor(6, EPOCH)) == Resume(EventKey(7, 3), recovered=False)
    assert await world.feed.read(EventKey(7, 3), 10) == []


async def test_silence_for_longer_than_a_heartbeat_is_a_broken_watch(peer: Peer) -> None:
    async for world in world_of(peer, silence=0.2):
        call = await world.peer.watch()
        # Nothing is said, not even a greeting.
        again = await world.peer.watch()
        await call.ended.wait()
        again.greet(5)
        again.tell(*events(6, 6))
        third = await world.peer.watch()
        assert third.request.after == cursor(6)
        assert world.feed.fault == "nothing was heard for 0.2 seconds"


async def test_what_has_no_meaning_here_is_asked_for_again(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    call.tell(*events(6, 6))
    strange = event_message(event_of_title(7), cursor(7))
    strange.type = 99  # type: ignore[assignment]
    call.answers.put_nowait(pb.WatchTasksResponse(events=[strange], cursor=cursor(7)))
    call = await world.peer.watch()
    assert call.request.after == cursor(6)
    assert "not understood" in (world.feed.fault or "")


async def test_a_listener_that_fails_is_a_bug_of_this_process(world: World) -> None:
    def broken(batch: object) -> None:
        raise KeyError("a bug")

    world.feed.subscribe(broken)
    call = await world.peer.watch()
    call.greet(5)
    call.tell(*events(6, 6))
    with pytest.raises(KeyError):
        await world.supervisor.failed


async def test_the_past_is_read_from_the_upstream_and_no_further_than_what_was_told(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    # Of its own, the server that answers may have read further than the one that is watched.
    world.peer.answers["ListEvents"] = listed(events(2, 7), cursor=cursor(7))
    assert await world.feed.read(EventKey(7, 1), 10) == events(2, 5)
    assert await world.feed.read(EventKey(7, 1), 10, EventKey(7, 6)) == events(2, 6)
    asked = [request for _, request, _ in world.peer.calls]
    assert [(one.after, one.limit, one.all_owners) for one in asked] == [(cursor(1), 10, True)] * 2
    # Or not so far: then it has to.
    assert [one.not_before for one in asked] == [cursor(5), cursor(6)]


async def test_a_long_past_is_read_page_by_page(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    world.peer.answers["ListEvents"] = listed(events(3, 3), cursor=cursor(3), more=True)
    # Each page is one event here, whatever was asked for: pages are bounded in bytes too.
    assert len(await world.feed.read(LOG_START, 3)) == 3
    limits = [request.limit for _, request, _ in world.peer.calls]
    assert limits == [3, 2, 1]
    assert [request.after for _, request, _ in world.peer.calls][1:] == [cursor(3)] * 2
    world.peer.answers["ListEvents"] = listed(events(3, 3), cursor=cursor(3))
    await world.feed.read(LOG_START, 5 * MOST)
    assert world.peer.calls[-1][1].limit == MOST


async def test_a_past_that_is_gone_meanwhile_is_not_taken_for_an_empty_one(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    world.peer.answers["ListEvents"] = listed([], recovered=False, cursor=cursor(5))
    with pytest.raises(Unavailable):
        await world.feed.read(EventKey(7, 1), 10)


async def test_a_cursor_from_before_is_for_the_upstream_to_judge(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    world.peer.answers["ListEvents"] = listed([], cursor=cursor(2))
    assert await world.feed.resume(cursor(2)) == Resume(EventKey(7, 2), recovered=True)
    # Another gateway may have been told more.
    assert await world.feed.resume(cursor(9)) == Resume(EventKey(7, 9), recovered=True)
    world.peer.answers["ListEvents"] = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(Unavailable, match="does not answer"):
        await world.feed.resume(cursor(2))


async def test_the_databases_clock_is_told_by_its_answers(world: World) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def at(seconds: float) -> object:
        return timestamp(start + timedelta(seconds=seconds))

    call = await world.peer.watch()
    world.now = 1000.0
    # Half a second on its way, then none, then one.
    call.greet(5, now=at(-0.5))
    await eventually(lambda: world.feed.now() == start - timedelta(seconds=0.5))
    call.tell(*events(6, 6), now=at(0))
    await eventually(lambda: world.numbers == [6])
    assert world.feed.now() == start
    call.tell(*events(7, 7), now=at(-1))
    await eventually(lambda: world.numbers == [6, 7])
    assert world.feed.now() == start
    world.now += 2
    assert world.feed.age(start) == 2
    assert world.feed.age(start + timedelta(seconds=5)) == 0
    # A clock that was set back meanwhile is noticed with the next watch.
    call.end(grpc.StatusCode.UNAVAILABLE)
    call = await world.peer.watch()
    call.greet(7, recovered=True, now=at(-60))
    await eventually(lambda: world.feed.fault is None)
    assert world.feed.now() == start - timedelta(seconds=60)


async def test_stopping_ends_the_watch_and_is_safe_twice(world: World) -> None:
    call = await world.peer.watch()
    call.greet(5)
    await eventually(lambda: world.feed.fault is None)
    await world.feed.stop()
    await world.feed.stop()
    await call.ended.wait()
