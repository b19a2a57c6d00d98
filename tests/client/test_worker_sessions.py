"""What a worker says to a server that does its part, and to one that does not."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from taskd import Context, Retry, Task
from taskd.client import Worker
from taskd.v1 import taskd_pb2 as pb
from tests.client.peer import Handler, attempt_of, echo, keys_of, serving, task_of_kind, worker_of, working
from tests.waiting import eventually


async def test_it_says_what_it_offers_and_sends_what_handlers_return() -> None:
    async with serving() as peer:
        worker = worker_of(peer, echo, slots=3, lease=7.5, name="w1")
        worker.handler("more")(echo)
        async with working(worker):
            stream = await peer.meet()
            hello = stream.hello
            assert (list(hello.kinds), hello.slots, hello.name, hello.session) == (["more", "work"], 3, "w1", "")
            assert hello.lease.seconds == 7
            assert hello.lease.nanos == 500_000_000
            stream.welcome()
            task = task_of_kind(payload_json='{"a":[1.50]}')
            stream.give(task)
            (result,) = await stream.results()
            assert result == pb.Result(attempt=attempt_of(task), result='{"a":[1.5]}')
            stream.settle(task)


@pytest.mark.parametrize(
    ("raises", "options", "wanted"),
    [
        (ValueError("no"), {}, {"type": "ValueError", "message": "no"}),
        (Retry("later", after=2.5), {}, {"type": "Retry", "message": "later", "retry_after": 2.5}),
        (ValueError("no"), {"max_attempts": 1}, {"type": "ValueError", "message": "no", "final": True}),
    ],
)
async def test_it_says_why_a_handler_failed(raises: Exception, options: Any, wanted: dict[str, Any]) -> None:
    async def fail(task: Task, ctx: Context) -> None:
        raise raises

    async with serving() as peer:
        worker = Worker(peer.address)
        worker.handler("work", **options)(fail)
        async with working(worker):
            stream = await peer.meet()
            stream.welcome()
            stream.give(task_of_kind())
            failure = (await stream.results())[0].failure
            assert (failure.type, failure.message, failure.final) == (
                wanted["type"],
                wanted["message"],
                wanted.get("final", False),
            )
            if "retry_after" in wanted:
                assert failure.retry_after.ToMilliseconds() == wanted["retry_after"] * 1000


async def test_a_plain_function_runs_in_a_thread_and_its_progress_arrives() -> None:
    def plain(task: Task, ctx: Context) -> str:
        ctx.report(0.25, "a quarter")
        assert threading.current_thread() is not threading.main_thread()
        ctx.wait_cancelled(60)
        return "stopped"

    async with serving() as peer, working(worker_of(peer, plain)):
        stream = await peer.meet()
        stream.welcome()
        task = task_of_kind()
        stream.give(task)
        (report,) = (await stream.next()).progress.reports
        assert (report.attempt, report.fraction, report.note) == (attempt_of(task), 0.25, "a quarter")
        stream.cancel(task, pb.CANCEL_REASON_CANCELLED)
        (result,) = await stream.results()
        assert result.WhichOneof("outcome") == "released"


@pytest.mark.parametrize("reason", pb.CancelReason.values())
async def test_a_cancelled_attempt_is_stopped_and_answered(reason: pb.CancelReason) -> None:
    handler = Handler()
    async with serving() as peer, working(worker_of(peer, handler)):
        stream = await peer.meet()
        stream.welcome()
        task = task_of_kind()
        stream.give(task)
        await eventually(lambda: handler.started)
        stream.cancel(task, reason)
        (result,) = await stream.results()
        assert result.attempt == attempt_of(task)
        assert handler.cancelled == [task]


async def test_the_cancellation_of_what_is_not_here_is_answered() -> None:
    async with serving() as peer, working(worker_of(peer, echo)):
        stream = await peer.meet()
        stream.welcome()
        stream.cancel(unknown := task_of_kind(), pb.CANCEL_REASON_CANCELLED)
        assert await stream.results() == [pb.Result(attempt=attempt_of(unknown), released=pb.Released())]


async def test_a_ping_is_answered() -> None:
    async with serving() as peer, working(worker_of(peer, echo)):
        stream = await peer.meet()
        stream.welcome()
        stream.say(ping=pb.Ping())
        assert (await stream.next()).WhichOneof("message") == "pong"


async def test_what_no_slot_and_no_handler_is_for_is_given_back() -> None:
    handler = Handler()
    async with serving() as peer, working(worker_of(peer, handler, slots=1)):
        stream = await peer.meet()
        stream.welcome()
        held, excess, strange = task_of_kind(), task_of_kind(), task_of_kind("strange")
        stream.give(held, excess, strange)
        results = await stream.results(2)
        assert [result.WhichOneof("outcome") for result in results] == ["released", "released"]
        assert keys_of(result.attempt for result in results) == {excess.id, strange.id}
        assert handler.started == [held]


async def test_a_broken_stream_is_begun_again_and_the_session_goes_on() -> None:
    handler = Handler()
    async with serving() as peer, working(worker_of(peer, handler)):
        first = await peer.meet()
        first.welcome("s1")
        first.give(runs := task_of_kind(), ends := task_of_kind("work"))
        await eventually(lambda: len(handler.started) == 2)
        first.end(grpc.StatusCode.UNAVAILABLE)
        second = await peer.meet()
        assert second.hello.session == "s1"
        assert keys_of(second.hello.running) == {runs.id, ends.id}
        second.welcome("s1", resumed=True)
        handler.let_go.set()
        assert keys_of(result.attempt for result in await second.results(2)) == {runs.id, ends.id}
        assert handler.cancelled == []


async def test_a_result_is_sent_until_it_is_settled() -> None:
    async with serving() as peer, working(worker_of(peer, echo)):
        first = await peer.meet()
        first.welcome("s1")
        first.give(task := task_of_kind())
        sent = await first.results()
        first.end(grpc.StatusCode.UNAVAILABLE)
        second = await peer.meet()
        assert keys_of(second.hello.running) == {task.id}
        second.welcome("s1", resumed=True)
        assert await second.results() == sent
        second.settle(task)
        second.say(ping=pb.Ping())
        await second.next()
        second.end(grpc.StatusCode.UNAVAILABLE)
        assert not (await peer.meet()).hello.running


async def test_what_ran_for_a_session_that_is_over_is_stopped_and_not_reported() -> None:
    handler = Handler()
    async with serving() as peer:
        worker = worker_of(peer, handler)
        async with working(worker):
            first = await peer.meet()
            first.welcome("s1")
            first.give(task_of_kind())
            await eventually(lambda: handler.started)
            first.end(grpc.StatusCode.UNAVAILABLE)
            second = await peer.meet()
            second.welcome("s2")
            await eventually(lambda: handler.cancelled and worker.busy == 0)
            second.say(ping=pb.Ping())
            assert (await second.next()).WhichOneof("message") == "pong"
            assert second.heard.empty()


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_it_comes_back_whatever_the_stream_ended_with(code: grpc.StatusCode) -> None:
    async with serving() as peer, working(worker_of(peer, echo)):
        (await peer.meet()).end(code)
        (await peer.meet()).end()
        (await peer.meet()).welcome()


async def test_it_comes_back_when_the_server_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as peer, working(worker_of(peer, echo)):
        first = await peer.meet()
        first.welcome("s1", lease=0.2)
        second = await peer.meet()
        assert second.hello.session == "s1"
        await first.until_closed()
    assert "says nothing for 0.1 s" in caplog.text


async def test_it_stops_its_handlers_before_the_lease_is_over() -> None:
    handler = Handler()
    now = 0.0
    async with serving() as peer:
        worker = worker_of(peer, handler, clock=lambda: now)
        async with working(worker):
            stream = await peer.meet()
            stream.welcome("s1", lease=60)
            stream.give(task := task_of_kind())
            await eventually(lambda: handler.started)
            assert worker._shift is not None
            now = 39.9
            await worker._shift.fence()
            assert handler.cancelled == []
            now = 40.1
            await worker._shift.fence()
            await eventually(lambda: handler.cancelled and worker.busy == 0)
            stream.end(grpc.StatusCode.UNAVAILABLE)
            again = await peer.meet()
            assert (again.hello.session, list(again.hello.running)) == ("s1", [])
            again.welcome("s1", resumed=True)
            again.cancel(task, pb.CANCEL_REASON_LOST)
            assert (await again.results())[0].WhichOneof("outcome") == "released"
