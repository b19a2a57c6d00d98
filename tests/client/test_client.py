"""The task calls of another program, against a server."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from taskd import Task, Taskd, log
from taskd.client import Client, EventsMissed
from taskd.client.client import end_among
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import EventKey, EventType
from taskd.domain.model import Status
from taskd.errors import Conflict, Invalid, KeyReused, NotFound, StaleVersion, StartError, Unavailable
from taskd.rpc.messages import event_message
from tests.client.proxy import proxied
from tests.running import embedded
from tests.waiting import eventually

WAITING: dict[str, Any] = {"kind": "nobody"}


async def stored(app: Taskd) -> tuple[Task, ...]:
    """Return all tasks, whoever owns them."""
    return (await app.tasks.list()).tasks


async def answers(client: Client) -> bool:
    """Return whether the server answers that it is ready."""
    try:
        return await client.health()
    except Unavailable:
        return False


async def test_a_task_has_the_fields_that_it_was_given(app: Taskd, ann: Client) -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=3)))
    task = await ann.create(
        "Täsk «отчёт»",
        kind="nobody",
        description="d",
        payload={"n": 12345678901234567890, "deep": [{"a": None}]},
        priority=-5,
        run_at=at,
        max_attempts=7,
        timeout_seconds=1.5,
    )
    assert task == await app.tasks.get(task.id) == await ann.get(task.id) == await ann.get(str(task.id))
    assert (task.owner, task.title, task.kind, task.description) == ("ann", "Täsk «отчёт»", "nobody", "d")
    assert task.payload == {"n": 12345678901234567890, "deep": [{"a": None}]}
    assert (task.priority, task.run_at, task.max_attempts, task.timeout_seconds) == (-5, at, 7, 1.5)
    assert (await ann.create("later", run_at="2030-01-02T00:00:00Z")).run_at == datetime(2030, 1, 2, tzinfo=UTC)


async def test_many_are_created_in_their_order(ann: Client) -> None:
    tasks = await ann.create_many({"title": f"t{n}", **WAITING} for n in range(20))
    assert [task.title for task in tasks] == [f"t{n}" for n in range(20)]


async def test_a_list_goes_on_from_page_to_page(ann: Client) -> None:
    tasks = await ann.create_many({"title": f"t{n}", "kind": f"k{n % 2}"} for n in range(7))
    first = await ann.list(limit=3, order="created_at")
    assert first.tasks == tuple(tasks[:3])
    second = await ann.list(limit=3, order="created_at", cursor=first.next_cursor)
    assert second.tasks == tuple(tasks[3:6])
    assert [task async for task in ann.iterate(limit=2, order="created_at")] == list(tasks)
    assert [task async for task in ann.iterate(limit=2, kind="k1")] == list(tasks[1::2])[::-1]
    assert (await ann.list(status=["done", "failed"])).tasks == ()
    assert len((await ann.list(created_after=tasks[0].created_at - timedelta(seconds=1))).tasks) == 7
    with pytest.raises(Invalid, match="cursor"):
        await ann.list(cursor=first.next_cursor, order="-created_at")


async def test_a_task_is_changed(ann: Client) -> None:
    task = await ann.create("before", payload={"a": 1, "b": 2}, priority=5, run_at="2030-01-01T00:00:00Z", **WAITING)
    changed = await ann.update(task.id, title="after", payload={"a": None, "c": [1]}, if_versions=[task.version])
    assert (changed.title, changed.payload, changed.priority) == ("after", {"b": 2, "c": [1]}, 5)
    with pytest.raises(StaleVersion):
        await ann.update(task.id, title="late", if_versions=[task.version])
    with pytest.raises(StaleVersion):
        await ann.update(task.id, title="never", if_versions=[])
    reset = await ann.update(task.id, payload=None, priority=None, run_at=None, description="")
    assert (reset.payload, reset.priority, reset.status) == ({}, 0, Status.NEW)
    with pytest.raises(Invalid, match="kind"):
        await ann.update(task.id, kind="other")


async def test_a_task_is_cancelled_tried_again_and_removed(ann: Client) -> None:
    task = await ann.create("t", **WAITING)
    assert (await ann.cancel(task.id)).status is Status.CANCELLED
    assert (await ann.retry(task.id)).status is Status.NEW
    with pytest.raises(Conflict):
        await ann.retry(task.id)
    with pytest.raises(StaleVersion):
        await ann.delete(task.id, if_versions=[task.version])
    history = await ann.history(task.id)
    assert [event.type for event in history.events][:2] == [EventType.CREATED, EventType.CANCELLED]
    gone = await ann.delete(task.id)
    assert gone.id == task.id
    with pytest.raises(NotFound):
        await ann.get(task.id)


async def test_what_others_own_is_not_there(app: Taskd, ann: Client) -> None:
    task = await app.tasks.create("t", owner="ben", **WAITING)
    for call in (ann.get, ann.cancel, ann.retry, ann.delete, ann.history):
        with pytest.raises(NotFound):
            await call(task.id)


async def test_a_search_finds_words(ann: Client) -> None:
    task = await ann.create("Quarterly отчёты", description="of sales", **WAITING)
    await ann.create("nothing of that", **WAITING)
    page = await ann.search("отчёт")
    assert [found.task for found in page.results] == [task]
    assert (page.total, page.exact, page.next_cursor, page.hint) == (1, True, None, None)
    assert page.results[0].title == "Quarterly <mark>отчёты</mark>"
    assert (await ann.search("quart", prefix=True, status=["new"], kind="nobody", limit=1)).total == 1
    assert (await ann.search("the")).hint


async def test_wrong_arguments_are_all_told_without_a_call() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Invalid) as refused:
            await client.create("", priority=101, colour="red", run_at=datetime(2030, 1, 1, tzinfo=UTC))
        assert {fault.field for fault in refused.value.faults} == {"title", "priority", "colour"}
        with pytest.raises(Invalid, match="payload"):
            await client.create("t", payload={"a": {1}})
        with pytest.raises(Invalid, match=r"tasks\[1\].title"):
            await client.create_many([{"title": "t"}, {"title": ""}])
        with pytest.raises(Invalid, match="id: must be a UUID"):
            await client.get("x")
        with pytest.raises(Invalid, match="limit"):
            await client.list(limit=0)
        with pytest.raises(Invalid, match="request_id"):
            await client.get(uuid4(), request_id="two words")
    with pytest.raises(Invalid, match="user"):
        Client("127.0.0.1:1", user="")
    with pytest.raises(Invalid, match="token"):
        Client("127.0.0.1:1", token="two words")


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with Client("127.0.0.1:1", timeout=5) as client:
        for call in (client.get(uuid4()), client.create("t"), client.health(), client.wait(uuid4())):
            with pytest.raises(Unavailable):
                await call


async def test_a_client_wants_to_be_open() -> None:
    client = Client("127.0.0.1:1")
    with pytest.raises(StartError):
        await client.get(uuid4())
    async with client:
        pass
    await client.close()
    with pytest.raises(StartError):
        await client.health()


async def test_a_key_gives_the_same_task_again(ann: Client) -> None:
    one = await ann.create("t", idempotency_key="k", **WAITING)
    assert await ann.create("t", idempotency_key="k", **WAITING) == one
    with pytest.raises(KeyReused):
        await ann.create("other", idempotency_key="k", **WAITING)


async def test_a_create_whose_answer_is_lost_happens_once(app: Taskd) -> None:
    assert app.grpc_address is not None
    async with proxied(app.grpc_address) as proxy, Client(proxy.address, user="ann") as client:
        await client.list()
        proxy.freeze(answers_only=True)
        creating = asyncio.create_task(client.create("once", **WAITING))
        # It is stored when it is seen from elsewhere; its answer is on its way.
        tasks = await eventually(lambda: stored(app))
        proxy.cut()
        assert (await creating).id == tasks[0].id
        assert await stored(app) == tasks


async def test_a_call_takes_no_longer_than_it_may(app: Taskd) -> None:
    assert app.grpc_address is not None
    async with proxied(app.grpc_address) as proxy, Client(proxy.address) as client:
        await client.list()
        proxy.freeze()
        client._connection._timeout = 0.3
        for call in (client.list(), client.create("t")):
            with pytest.raises(Unavailable):
                await call


async def test_health_is_what_the_server_says(app: Taskd, ann: Client) -> None:
    assert await ann.health()
    assert await ann.health("taskd.v1.TaskService")
    with pytest.raises(NotFound):
        await ann.health("no.such.Service")
    app.parts.health.stopping()
    assert not await ann.health()


async def test_a_request_id_travels(ann: Client) -> None:
    class Ids(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(log.request_id.get())

    found: list[str | None] = []
    logger, handler = logging.getLogger("taskd.grpc"), Ids()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        await ann.list(request_id="mine-1")
        await eventually(lambda: "mine-1" in found)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_any_name_that_an_owner_can_have_calls(app: Taskd) -> None:
    assert app.grpc_address is not None
    for name in ("Ёлка 🎄", "two words", "100%"):
        async with Client(app.grpc_address, user=name) as client:
            assert (await client.create("t", **WAITING)).owner == name


async def test_events_are_told_in_order_with_their_places(app: Taskd, ann: Client) -> None:
    events = ann.events(kinds=["nobody"])
    await events.start()
    await app.tasks.create("of another kind", kind="other", owner="ann")
    await app.tasks.create("of another user", owner="ben", **WAITING)
    task = await ann.create("t", **WAITING)
    await ann.cancel(task.id)
    async with asyncio.timeout(30):
        (first, created), (_, cancelled) = await anext(events), await anext(events)
    assert (created.type, created.task) == (EventType.CREATED, task)
    assert cancelled.type is EventType.CANCELLED
    assert cancelled.was is Status.NEW
    async with asyncio.timeout(30):
        assert (await anext(ann.events(after=first)))[1] == cancelled


async def test_no_event_is_lost_or_comes_twice_when_connections_break(app: Taskd) -> None:
    assert app.grpc_address is not None
    async with proxied(app.grpc_address) as proxy, Client(proxy.address, user="ann") as client:
        events = client.events()
        await events.start()
        seen: list[str] = []
        for number in range(30):
            await app.tasks.create(f"t{number}", owner="ann", **WAITING)
            if number % 5 == 0:
                proxy.cut()
            elif number % 3 == 0:
                async with asyncio.timeout(30):
                    seen.append((await anext(events))[1].task.title)
        async with asyncio.timeout(30):
            while len(seen) < 30:
                seen.append((await anext(events))[1].task.title)
        assert seen == [f"t{number}" for number in range(30)]
        assert proxy.accepted > 1


async def test_another_server_of_the_same_log_goes_on_where_the_first_one_stopped(database_url: str) -> None:
    async with proxied("") as proxy, Client(proxy.address, user="ann") as client:
        events = client.events()
        waiting: list[asyncio.Task[Task]] = []
        for number in range(3):
            async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
                assert server.app is not None
                proxy.target = server.app.grpc_address or ""
                if number == 0:
                    await events.start()
                    held = await client.create("held", **WAITING)
                    waiting.append(asyncio.create_task(client.wait(held.id)))
                    await eventually(partial(server.has_answered, "TaskService/GetTask", 1))
                await eventually(lambda: answers(client))
                await server.app.tasks.create(f"t{number}", owner="ann", **WAITING)
                if number == 2:
                    await server.app.tasks.cancel(held.id)
                    assert (await waiting[0]).status is Status.CANCELLED
                    async with asyncio.timeout(30):
                        seen = [(await anext(events))[1].task.title for _ in range(5)]
        assert seen == ["held", "t0", "t1", "t2", "held"]


async def test_a_place_in_another_log_means_that_events_were_missed(ann: Client) -> None:
    elsewhere = encode_log_cursor(LogCursor(b"elsewher", EventKey(1, 1)))
    events = ann.events(after=elsewhere)
    with pytest.raises(EventsMissed):
        await anext(events)
    task = await ann.create("t", **WAITING)
    async with asyncio.timeout(30):
        assert (await anext(events))[1].task == task


async def test_waiting_ends_with_the_task(app: Taskd, ann: Client) -> None:
    task = await ann.create("t", **WAITING)
    waiting = asyncio.create_task(ann.wait(task.id))
    await ann.update(task.id, title="still waits")
    await ann.cancel(task.id)
    ended = await waiting
    assert ended == await ann.get(task.id)
    assert ended.status is Status.CANCELLED
    assert await ann.wait(task.id) == ended


async def test_waiting_for_a_task_that_goes_away_ends(app: Taskd, ann: Client) -> None:
    with pytest.raises(NotFound):
        await ann.wait(uuid4())
    task = await ann.create("t", **WAITING)
    events = ann.events()
    await events.start()
    await ann.delete(task.id)
    async with asyncio.timeout(30):
        async for cursor, event in events:  # noqa: B007 - told below
            if event.type is EventType.DELETED:
                break
    with pytest.raises(NotFound):
        end_among([event_message(event, cursor)])


async def test_waiting_has_an_end(ann: Client) -> None:
    task = await ann.create("t", **WAITING)
    with pytest.raises(TimeoutError):
        await ann.wait(task.id, timeout=0.05)


async def test_many_who_wait_race_with_nobody(app: Taskd, ann: Client) -> None:
    tasks = await ann.create_many({"title": f"t{n}", **WAITING} for n in range(30))
    waiting = [asyncio.create_task(ann.wait(task.id)) for task in tasks]
    for task in tasks:
        await app.tasks.cancel(task.id)
    ended = await asyncio.gather(*waiting)
    assert [(task.id, task.status) for task in ended] == [(task.id, Status.CANCELLED) for task in tasks]
