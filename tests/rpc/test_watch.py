"""`WatchTasks`: what a watch is told, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any
from uuid import UUID

import grpc
import pytest

from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import EventKey, EventType
from taskd.domain.model import Status, Task
from taskd.errors import Unavailable
from taskd.rpc import watch as module
from taskd.rpc.messages import event_message, time_of
from taskd.rpc.watch import ANSWER, BEHIND, READ
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import end_of
from tests.rpc.watching import EVE, Watching, watching
from tests.waiting import eventually
from tests.ws.serving import AT, make_task

Code = grpc.StatusCode
BIG = "x" * 20_000


def tasks(first: int, last: int, **values: Any) -> list[Task]:
    """Return tasks whose versions are their places in the log."""
    return [make_task(version=number, **values) for number in range(first, last + 1)]


async def follows(served: Watching, number: int = 1) -> None:
    """Wait until so many watches are live."""
    await eventually(lambda: len(served.log.listeners) == number)


async def test_the_first_answer_says_where_it_begins() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, 3))
        watch = await served.greeted()
        (first,) = watch.answers
        assert (first.cursor, list(first.events), first.start.HasField("recovered")) == (served.cursor(3), [], False)
        assert time_of(first.now) == AT
        await follows(served)
        served.log.write(*tasks(4, 5), type_=EventType.STARTED)
        answer = await watch.answer()
        assert [event.cursor for event in answer.events] == [served.cursor(4), served.cursor(5)]
        assert answer.events[0] == event_message(served.log.events[3], served.cursor(4))
        assert (answer.cursor, answer.HasField("start"), time_of(answer.now)) == (served.cursor(5), False, AT)
        watch.call.cancel()


@pytest.mark.parametrize("hand_on", [True, False])
async def test_a_watch_goes_on_behind_its_cursor(hand_on: bool) -> None:
    async with watching() as served:
        count = 2 * READ + 50
        served.log.write(*tasks(1, count))
        watch = await served.greeted(after=served.cursor(10))
        assert watch.answers[0].start.recovered
        assert watch.answers[0].cursor == served.cursor(10)
        await watch.until(count - 10)
        # The log may be ahead of what live watches have been told.
        served.log.write(*tasks(count + 1, count + 20), hand_on=hand_on)
        await follows(served)
        served.log.hand_on()
        assert await watch.until(count + 10) == list(range(11, count + 21))
        watch.call.cancel()


async def test_a_place_that_is_gone_is_told_and_the_watch_begins_at_the_end() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, 5))
        served.log.floor = EventKey(7, 3)
        other = encode_log_cursor(LogCursor(b"another!", EventKey(7, 5)))
        for after in (served.cursor(1), other):
            watch = await served.greeted(after=after)
            assert watch.answers[0].start.HasField("recovered")
            assert not watch.answers[0].start.recovered
            assert watch.cursor == served.cursor(5)
            watch.call.cancel()


async def test_a_cursor_of_another_server_may_be_ahead_of_this_one() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, 3))
        served.log.write(*tasks(4, 5), hand_on=False)
        watch = await served.greeted(after=served.cursor(5))
        await follows(served)
        served.log.write(*tasks(6, 6))
        assert await watch.until(1) == [6]
        watch.call.cancel()


async def test_events_that_are_gone_keep_nobody_from_what_comes() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, 5))
        del served.log.events[3:]
        watch = await served.greeted(after=served.cursor(1))
        await follows(served)
        assert await watch.until(2) == [2, 3]
        watch.call.cancel()


async def test_what_happens_while_it_catches_up_is_told_once() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, READ))
        dice = random.Random(4)

        def more() -> None:
            last = len(served.log.events)
            if last < 4 * READ:
                served.log.write(*tasks(last + 1, last + dice.randint(1, READ)), hand_on=dice.random() < 0.5)

        served.log.before_read = more
        watch = await served.greeted(after=served.cursor(0))
        await follows(served)
        served.log.hand_on()
        assert await watch.until(len(served.log.events)) == list(range(1, len(served.log.events) + 1))
        watch.call.cancel()


async def test_a_reader_that_comes_and_goes_misses_nothing_and_gets_nothing_twice() -> None:
    async with watching() as served:
        dice = random.Random(7)
        seen: list[int] = []
        cursor = served.cursor(0)
        while len(seen) < 3000:
            last = len(served.log.events)
            served.log.write(*tasks(last + 1, last + dice.randint(1, 300)), hand_on=dice.random() < 0.7)
            served.log.hand_on()
            watch = await served.greeted(after=cursor)
            await watch.until(dice.randint(1, len(served.log.events) - len(seen)))
            seen += watch.numbers
            cursor = watch.cursor
            watch.call.cancel()
        assert seen == list(range(1, len(seen) + 1))
        await follows(served, 0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"kinds": ["a"]}, [1, 2]),
        ({"kinds": ["a", "b"]}, [1, 2, 3]),
        ({"statuses": [pb.TASK_STATUS_DONE]}, [2, 4]),
        ({"kinds": ["a", "c"], "statuses": [pb.TASK_STATUS_DONE]}, [2, 4]),
        ({"tasks": [str(UUID(int=3)), str(UUID(int=4))]}, [3, 4]),
        ({"tasks": [str(UUID(int=3)), str(UUID(int=4))], "kinds": ["b"]}, [3]),
        ({"all_owners": True}, [1, 2, 3, 4, 5, 6]),
        ({"all_owners": True, "kinds": ["a"]}, [1, 2, 6]),
    ],
)
@pytest.mark.parametrize("live", [True, False])
async def test_a_watch_gets_what_it_asks_for(fields: dict[str, Any], expected: list[int], live: bool) -> None:
    last = make_task("ann", "last", number=7, version=7, status=Status.DONE)
    wanted = [
        make_task("ann", "a", number=1, version=1),
        make_task("ann", "a", number=2, version=2, status=Status.DONE),
        make_task("ann", "b", number=3, version=3),
        make_task("ann", "c", number=4, version=4, status=Status.DONE),
        make_task("ann", "c", number=5, version=5),
        make_task("bob", "a", number=6, version=6),
    ]
    async with watching() as served:
        if not live:
            served.log.write(*wanted)
        watch = await served.greeted(after=served.cursor(0), **fields)
        await follows(served)
        if live:
            served.log.write(*wanted)
        end = await served.greeted(kinds=["last"])
        await follows(served, 2)
        served.log.write(last)
        await end.until(1)
        assert await watch.until(len(expected)) in (expected, [*expected, 7])
        for one in (watch, end):
            one.call.cancel()


async def test_only_who_may_see_all_sees_all() -> None:
    async with watching() as served:
        refusal = await end_of(served.begin(EVE, all_owners=True).call)
        assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "FORBIDDEN")
        refusal = await served.caller.refused("ListEvents", all_owners=True)
        assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "FORBIDDEN")
        watch = await served.greeted(EVE)
        await follows(served)
        served.log.write(make_task("ann", version=1), make_task(EVE, version=2))
        assert await watch.until(1) == [2]
        watch.call.cancel()


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"after": "x"}, {"after"}),
        ({"kinds": ["a", "A"]}, {"kinds[1]"}),
        ({"statuses": [0, pb.TASK_STATUS_NEW, 99]}, {"statuses[0]", "statuses[2]"}),
        ({"tasks": ["x"], "kinds": [""]}, {"tasks[0]", "kinds[0]"}),
        ({"kinds": ["a"] * 101}, {"kinds"}),
    ],
)
async def test_each_bad_field_is_named(fields: dict[str, Any], faults: set[str]) -> None:
    async with watching() as served:
        refusal = await end_of(served.begin(**fields).call)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "VALIDATION")
    assert refusal.faults.keys() == faults


async def test_silence_is_broken_now_and_then_and_moves_the_cursor_past_what_others_got() -> None:
    async with watching(heartbeat=0.05) as served:
        watch = await served.greeted(kinds=["nobody"])
        await follows(served)
        quiet = await watch.answer()
        assert (list(quiet.events), quiet.HasField("start"), time_of(quiet.now)) == ([], False, AT)
        served.log.write(*tasks(1, 9))
        while watch.cursor != served.cursor(9):
            assert not (await watch.answer()).events
        watch.call.cancel()


async def test_much_is_sent_in_pieces_each_with_its_own_place() -> None:
    async with watching() as served:
        watch = await served.greeted()
        await follows(served)
        served.log.write(*tasks(1, 30, description=BIG))
        await watch.until(30)
        pieces = watch.answers[1:]
        assert len(pieces) > 5
        for piece in pieces:
            assert piece.cursor == piece.events[-1].cursor
            assert piece.ByteSize() < ANSWER + 2 * len(BIG)
        watch.call.cancel()


async def test_an_event_is_encoded_once_for_all_who_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []

    def counted(event: Any, cursor: str) -> pb.TaskEvent:
        encoded.append(event.key)
        return event_message(event, cursor)

    monkeypatch.setattr(module, "event_message", counted)
    async with watching() as served:
        watches = [await served.greeted() for _ in range(10)]
        await follows(served, 10)
        served.log.write(*tasks(1, 5))
        for watch in watches:
            assert await watch.until(5) == [1, 2, 3, 4, 5]
        late = await served.greeted(after=served.cursor(0))
        assert await late.until(5) == [1, 2, 3, 4, 5]
        assert len(encoded) == 5
        for watch in (*watches, late):
            watch.call.cancel()


async def test_a_live_reader_that_does_not_read_is_sent_away_and_comes_back() -> None:
    async with watching() as served:
        watch, other = await served.greeted(), await served.greeted()
        await follows(served, 2)
        written = 0
        # What the connection holds comes first, then what waits here; each has its bound.
        while len(served.log.listeners) == 2:
            served.log.write(*tasks(written + 1, written + 10, description=BIG))
            written += 10
            await other.until(written)
            assert written * len(BIG) < 64 * BEHIND
        with contextlib.suppress(grpc.RpcError):
            await watch.until(written)
        assert await watch.call.code() is Code.RESOURCE_EXHAUSTED
        seen = len(watch.numbers)
        assert 0 < seen < written
        again = await served.greeted(after=watch.cursor)
        await again.until(written - seen)
        assert watch.numbers + again.numbers == list(range(1, written + 1))
        for one in (again, other):
            one.call.cancel()


async def test_a_slow_reader_is_told_why() -> None:
    async with watching() as served:
        watch = await served.greeted()
        await follows(served)
        count = BEHIND // len(BIG) + 2
        served.log.write(*tasks(1, count, description=BIG))
        # Before it has taken any of that.
        served.log.write(*tasks(count + 1, count + 1, description=BIG))
        refusal = await end_of(watch.call)
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "SLOW_READER")
        assert refusal.retry_after > 0


async def test_a_large_batch_makes_nobody_slow_who_is_up_to_date() -> None:
    async with watching() as served:
        watch = await served.greeted()
        await follows(served)
        count = 3 * BEHIND // len(BIG)
        served.log.write(*tasks(1, count, description=BIG))
        assert await watch.until(count) == list(range(1, count + 1))
        watch.call.cancel()


async def test_far_behind_is_no_reason_to_be_sent_away() -> None:
    async with watching() as served:
        count = 3 * BEHIND // len(BIG)
        served.log.write(*tasks(1, count, description=BIG))
        watch = await served.greeted(after=served.cursor(0))
        assert await watch.until(count) == list(range(1, count + 1))
        watch.call.cancel()


async def test_large_events_are_read_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching() as served:
        limits: list[int] = []
        read = served.log.read

        async def noted(after: Any, limit: int, *until: Any) -> Any:
            limits.append(limit)
            return await read(after, limit, *until)

        monkeypatch.setattr(served.log, "read", noted)
        count = 3 * BEHIND // len(BIG)
        served.log.write(*tasks(1, count, description=BIG))
        watch = await served.greeted(after=served.cursor(0))
        await watch.until(count)
        assert limits[0] == 1
        assert max(limits) * len(BIG) <= BEHIND
        watch.call.cancel()


async def test_another_log_ends_all_watches() -> None:
    async with watching() as served:
        watch = await served.greeted()
        await follows(served)
        served.watches.reset()
        refusal = await end_of(watch.call)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "LOG_CHANGED")
        # New ones begin as ever.
        (await served.greeted()).call.cancel()


@pytest.mark.parametrize("where", ["live", "catching up"])
async def test_the_servers_stop_ends_all_watches_and_takes_no_more(where: str) -> None:
    async with watching() as served:
        if where == "catching up":
            served.log.write(*tasks(1, 5))
            served.log.stuck = asyncio.Event()
        watch = await served.greeted(after=served.cursor(0))
        await eventually(lambda: served.log.listeners or served.log.reads)
        served.watches.stop()
        for call in (watch.call, served.begin().call):
            refusal = await end_of(call)
            assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")


async def test_the_databases_outage_ends_only_who_needs_it() -> None:
    async with watching() as served:
        served.log.write(*tasks(1, 5))
        live = await served.greeted()
        await follows(served)
        served.log.errors.append(Unavailable("away", retry_after=3.0))
        refusal = await end_of(served.begin(after=served.cursor(1)).call)
        assert (refusal.code, refusal.reason, refusal.retry_after) == (Code.UNAVAILABLE, "UNAVAILABLE", 3.0)
        (await served.greeted()).call.cancel()
        served.log.write(*tasks(6, 6))
        assert await live.until(1) == [6]
        live.call.cancel()


async def test_a_thousand_watches_leave_nothing() -> None:
    async with watching() as served:
        for _ in range(10):
            watches = [served.begin() for _ in range(100)]
            for watch in watches:
                await watch.answer()
            await follows(served, 100)
            for watch in watches:
                watch.call.cancel()
            await follows(served, 0)
        assert served.watches._live == set()
