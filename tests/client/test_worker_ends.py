"""A worker, or its server, or what is between them, comes to an end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from taskd import Context, Task
from taskd.client import Worker, shift
from taskd.errors import ConfigError, StartError
from taskd.v1 import taskd_pb2 as pb
from tests.client.peer import Handler, attempt_of, echo, keys_of, serving, task_of_kind, worker_of, working
from tests.client.proxy import proxied
from tests.waiting import eventually


async def test_a_drain_moves_it_to_another_server_with_the_slots_that_are_left() -> None:
    handler = Handler()
    async with serving() as peer:
        worker = worker_of(peer, handler, slots=3)
        async with working(worker):
            old = await peer.meet()
            old.welcome("s1")
            old.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            old.say(drain=pb.Drain())
            new = await peer.meet()
            assert (new.hello.session, new.hello.slots, list(new.hello.running)) == ("", 2, [])
            new.welcome("s2")
            handler.let_go.set()
            assert (await old.results())[0].attempt == attempt_of(task)
            old.settle(task)
            await old.until_closed()
            # All slots are its again, so it says so.
            again = await peer.meet()
            assert (again.hello.session, again.hello.slots) == ("s2", 3)
            again.welcome("s2", resumed=True)
            await eventually(lambda: worker.connected)
    assert peer.met_all


async def test_a_drained_stream_that_breaks_takes_its_handlers_along() -> None:
    handler = Handler()
    async with serving() as peer, working(worker_of(peer, handler, slots=1)):
        old = await peer.meet()
        old.welcome("s1")
        old.give(task_of_kind())
        await eventually(lambda: handler.started)
        old.say(drain=pb.Drain())
        old.end(grpc.StatusCode.UNAVAILABLE)
        # There was no slot for another session before.
        new = await peer.meet()
        assert (new.hello.session, new.hello.slots) == ("", 1)
        assert handler.cancelled


async def test_it_leaves_once_its_handlers_have_ended() -> None:
    handler = Handler()
    async with serving() as peer:
        worker = worker_of(peer, handler)
        async with working(worker) as running:
            stream = await peer.meet()
            stream.welcome()
            stream.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            stopping = asyncio.create_task(worker.stop())
            assert (await stream.next()).WhichOneof("message") == "leave"
            stream.give(late := task_of_kind())
            assert await stream.results() == [pb.Result(attempt=attempt_of(late), released=pb.Released())]
            stream.settle(late)
            handler.let_go.set()
            assert (await stream.results())[0].result == '{"number":1}'
            assert not stream.closed.is_set()
            stream.settle(task)
            await stream.until_closed()
            stream.end()
            await stopping
            await running
        assert handler.cancelled == []


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_what_has_no_more_time_is_given_back(how: str) -> None:
    handler = Handler()
    async with serving() as peer:
        worker = worker_of(peer, handler)
        async with working(worker) as running:
            stream = await peer.meet()
            stream.welcome()
            stream.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            stopping = asyncio.create_task(worker.stop(0)) if how == "stop" else None
            if how == "cancel":
                running.cancel()
            assert await stream.results() == [pb.Result(attempt=attempt_of(task), released=pb.Released())]
            stream.settle(task)
            await stream.until_closed()
            stream.end()
            await asyncio.wait({running, *([stopping] if stopping else [])})
            assert running.cancelled() is (how == "cancel")
        assert handler.cancelled == [task]


async def test_it_stops_at_once_when_there_is_no_server() -> None:
    worker = Worker("127.0.0.1:1")
    worker.handler("work")(echo)
    async with working(worker) as running:
        await eventually(lambda: worker._shift is not None)
        await worker.stop()
        assert running.done()
    await worker.stop()


async def test_a_bug_in_it_ends_it_loudly() -> None:
    async with serving() as peer:
        worker = worker_of(peer, echo)
        running = asyncio.create_task(worker.run())
        stream = await peer.meet()
        stream.welcome()
        stream.say(tasks=pb.Tasks(tasks=[pb.Task(id="no id")]))
        with pytest.raises(ValueError, match="badly formed"):
            await running


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"slots": 1001}, {"slots": True}, {"lease": 1.9}, {"lease": 301}, {"name": "x" * 201}]
)
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Worker("127.0.0.1:1", **options)


async def test_it_wants_handlers_before_it_runs() -> None:
    with pytest.raises(ConfigError, match="1 to 100 kinds"):
        await Worker("127.0.0.1:1").run()
    worker = Worker("127.0.0.1:1")
    worker.handler("work")(echo)
    async with working(worker):
        await eventually(lambda: worker._shift is not None)
        with pytest.raises(StartError):
            worker.handler("more")(echo)
        with pytest.raises(StartError):
            await worker.run()


async def test_a_connection_that_swallows_everything_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler()
    async with serving() as peer, proxied(peer.address) as proxy:
        worker = Worker(proxy.address, clock=lambda: 0.0)
        worker.handler("work")(handler)
        async with working(worker):
            first = await peer.meet()
            first.welcome("s1", lease=1)
            first.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            # Nobody closes anything: neither side is told.
            proxy.freeze()
            second = await peer.meet()
            assert (second.hello.session, keys_of(second.hello.running)) == ("s1", {task.id})
            second.welcome("s1", resumed=True)
            handler.let_go.set()
            assert (await second.results())[0].attempt == attempt_of(task)
    # The next stream does not go the same dead way.
    assert "says nothing for 5 s" not in caplog.text


async def test_what_was_ended_while_there_was_no_server_is_sent_to_the_next() -> None:
    handler = Handler()
    async with serving() as peer, proxied(peer.address) as proxy:
        worker = Worker(proxy.address)
        worker.handler("work")(handler)
        async with working(worker):
            first = await peer.meet()
            first.welcome("s1")
            first.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            proxy.refusing = True
            proxy.cut()
            await eventually(lambda: not worker.connected)
            handler.let_go.set()
            await eventually(lambda: worker.busy == 0)
            proxy.refusing = False
            second = await peer.meet()
            assert keys_of(second.hello.running) == {task.id}
            second.welcome("s1", resumed=True)
            assert (await second.results())[0].result == '{"number":1}'


async def test_it_stops_at_once_when_it_only_waits_for_a_slot() -> None:
    let_go = threading.Event()
    started = threading.Event()

    def stubborn(task: Task, ctx: Context) -> None:
        started.set()
        let_go.wait()

    async with serving() as peer:
        worker = worker_of(peer, stubborn, slots=1)
        async with working(worker) as running:
            stream = await peer.meet()
            stream.welcome("s1")
            stream.give(task_of_kind())
            await eventually(started.is_set)
            stream.say(drain=pb.Drain())
            stream.end(grpc.StatusCode.UNAVAILABLE)
            # A thread can't be cancelled: it keeps the only slot, and what it returns is nobody's business.
            await stream.until_closed()
            await eventually(lambda: not worker.connected)
            await worker.stop()
            assert running.done()
            assert not let_go.is_set()
            let_go.set()
    assert peer.met_all


async def test_a_coroutine_that_ignores_its_cancellation_is_left_behind() -> None:
    let_go, started = asyncio.Event(), asyncio.Event()

    async def stubborn(task: Task, ctx: Context) -> None:
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    async with serving() as peer:
        worker = worker_of(peer, stubborn, slots=1, grace=0.01)
        async with working(worker):
            stream = await peer.meet()
            stream.welcome()
            stream.give(task := task_of_kind())
            await started.wait()
            stream.cancel(task, pb.CANCEL_REASON_CANCELLED)
            assert await stream.results() == [pb.Result(attempt=attempt_of(task), released=pb.Released())]
            assert worker.busy == 0
            let_go.set()


async def test_a_thread_that_never_ends_does_not_keep_it_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "SETTLE_WITHIN", 0.05)
    let_go, started = threading.Event(), threading.Event()

    def stubborn(task: Task, ctx: Context) -> None:
        started.set()
        let_go.wait()

    async with serving() as peer:
        worker = worker_of(peer, stubborn, grace=0.01)
        async with working(worker) as running:
            stream = await peer.meet()
            stream.welcome()
            stream.give(task_of_kind())
            await eventually(started.is_set)
            stopping = asyncio.create_task(worker.stop(0))
            assert (await stream.next()).WhichOneof("message") == "leave"
            # In order, so that the server gives back what is open.
            await stream.until_closed()
            stream.end()
            await stopping
            await running
            let_go.set()
