"""A worker elsewhere and a server, through a database."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskd import Context, Retry, Task, Taskd
from taskd.client import Client, Worker
from taskd.domain.model import Status
from tests.client.peer import Handler, working
from tests.client.proxy import proxied
from tests.running import embedded
from tests.waiting import eventually


def worker_at(app: Taskd, **options: Any) -> Worker:
    assert app.grpc_address is not None
    return Worker(app.grpc_address, user="ann", **options)


async def test_what_handlers_do_becomes_of_their_tasks(app: Taskd, ann: Client) -> None:
    worker = worker_at(app)

    @worker.handler("double")
    async def double(task: Task, ctx: Context) -> Any:
        await ctx.progress(0.5, "half way")
        await eventually(lambda: _noted(app, task, "half way"))
        return {"twice": task.payload["n"] * 2}

    @worker.handler("plain")
    def plain(task: Task, ctx: Context) -> str:
        return f"attempt {ctx.attempt}"

    @worker.handler("again")
    async def again(task: Task, ctx: Context) -> int:
        if ctx.attempt < 3:
            raise Retry("not yet", after=0)
        return ctx.attempt

    @worker.handler("once", max_attempts=1)
    async def once(task: Task, ctx: Context) -> None:
        raise RuntimeError("as asked")

    async with working(worker):
        doubled = await ann.wait((await ann.create("t", kind="double", payload={"n": 21})).id, 60)
        assert (doubled.result, doubled.progress_note, doubled.attempt) == ({"twice": 42}, "half way", 1)
        assert (await ann.wait((await ann.create("t", kind="plain")).id, 60)).result == "attempt 1"
        assert (await ann.wait((await ann.create("t", kind="again")).id, 60)).result == 3
        failed = await ann.wait((await ann.create("t", kind="once")).id, 60)
        assert failed.status is Status.FAILED
        assert failed.error is not None
        assert (failed.error.type, failed.error.message, failed.attempt) == ("RuntimeError", "as asked", 1)


async def test_slots_are_never_exceeded_and_all_is_done_once(app: Taskd, ann: Client) -> None:
    worker = worker_at(app, slots=5)
    now = most = 0
    runs: Counter[Any] = Counter()

    @worker.handler("work")
    async def work(task: Task, ctx: Context) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        runs[task.id] += 1
        await asyncio.sleep(0)
        now -= 1

    tasks = await ann.create_many({"title": "t", "kind": "work"} for _ in range(300))
    async with working(worker):
        await asyncio.gather(*(ann.wait(task.id, 90) for task in tasks))
    assert most <= 5
    assert runs == Counter(task.id for task in tasks)
    assert worker.refused == 0


async def test_a_users_cancellation_reaches_the_handler(app: Taskd, ann: Client) -> None:
    worker, handler = worker_at(app), Handler()
    worker.handler("work")(handler)
    async with working(worker):
        task = await ann.create("t", kind="work")
        await eventually(lambda: handler.started)
        await ann.cancel(task.id)
        assert (await ann.wait(task.id, 60)).status is Status.CANCELLED
        assert len(handler.cancelled) == 1


async def test_an_attempt_outlives_its_connection(app: Taskd, ann: Client) -> None:
    handler = Handler()
    assert app.grpc_address is not None
    async with proxied(app.grpc_address) as proxy:
        worker = Worker(proxy.address, user="ann")
        worker.handler("work")(handler)
        async with working(worker):
            task = await ann.create("t", kind="work")
            await eventually(lambda: handler.started)
            proxy.cut()
            await eventually(lambda: not worker.connected)
            await eventually(lambda: worker.connected)
            handler.let_go.set()
            done = await ann.wait(task.id, 60)
    assert (done.status, done.attempt, len(handler.started)) == (Status.DONE, 1, 1)


async def test_what_it_holds_when_it_stops_is_given_back_unspent(app: Taskd, ann: Client) -> None:
    worker, handler = worker_at(app), Handler()
    worker.handler("work")(handler)
    async with working(worker):
        task = await ann.create("t", kind="work")
        await eventually(lambda: handler.started)
        await worker.stop(0)
    given_back = await ann.get(task.id)
    assert (given_back.status, given_back.attempt) == (Status.NEW, 0)


@contextlib.asynccontextmanager
async def another(url: str, proxy: Any) -> AsyncIterator[Taskd]:
    """Run a server behind a proxy."""
    async with embedded(url, role="api", grpc="127.0.0.1:0", shutdown_seconds=60) as server:
        assert server.app is not None
        proxy.target = server.app.grpc_address
        yield server.app


@pytest.mark.parametrize("ends_in_time", [True, False])
async def test_a_server_that_stops_lets_handlers_end_and_the_next_gives_more(
    database_url: str, ends_in_time: bool
) -> None:
    handler = Handler()
    async with proxied("") as proxy, another(database_url, proxy) as first:
        worker = Worker(proxy.address, user="ann", slots=2)
        worker.handler("work")(handler)
        async with working(worker):
            held = await first.tasks.create("held", kind="work", owner="ann")
            await eventually(lambda: handler.started)
            async with another(database_url, proxy) as second:
                if not ends_in_time:
                    first.hurry()
                stopping = asyncio.create_task(first.stop())
                more = await second.tasks.create("more", kind="work", owner="ann")
                await eventually(lambda: more.id in [task.id for task in handler.started])
                handler.let_go.set()
                await stopping
                await eventually(lambda: _done(second, held))
                await eventually(lambda: _done(second, more))
                assert (await second.tasks.get(held.id)).attempt == 1
    assert len(handler.started) == (2 if ends_in_time else 3)


async def _noted(app: Taskd, task: Task, note: str) -> bool:
    return (await app.tasks.get(task.id)).progress_note == note


async def _done(app: Taskd, task: Task) -> bool:
    return (await app.tasks.get(task.id)).status is Status.DONE
