"""Streams of workers that break, fall silent or are replaced, against a real server and database."""

from __future__ import annotations

import grpc

from taskd import Taskd
from taskd.domain.model import Status
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.session import Session
from tests.client.proxy import proxied
from tests.rpc.working import Stream, attempt_of, done, id_of, reaches, working
from tests.waiting import eventually


async def test_a_broken_stream_is_taken_up_again(app: Taskd) -> None:
    kept, lost = [await app.tasks.create(f"{n}", kind="k") for n in range(2)]
    async with working(app) as first:
        welcome = await first.hello("k", slots=2)
        tasks = {id_of(task): task for task in await first.tasks(2)}
    async with working(app) as second:
        again = await second.hello("k", slots=2, session=welcome.session, running=[attempt_of(tasks[kept.id])])
        assert (again.resumed, again.session) == (True, welcome.session)
        # What it knows nothing of never reached it: it is given back unspent, and may come here again.
        [task] = await second.tasks()
        assert (id_of(task), task.attempt) == (lost.id, 1)
        assert await second.settle(done(tasks[kept.id]), done(task)) == {
            (str(kept.id), 1): True, (str(lost.id), 1): True,
        }  # fmt: skip
    await reaches(app, kept, Status.DONE)
    await reaches(app, lost, Status.DONE)


async def test_a_cancellation_during_the_break_is_told_when_the_worker_is_back(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with working(app) as first:
        welcome = await first.hello("k")
        [task] = await first.tasks()
    await eventually(lambda: not _sessions(app)[0].attached)
    await app.tasks.cancel(made.id)
    async with working(app) as second:
        await second.hello("k", session=welcome.session, running=[attempt_of(task)])
        assert (await second.hear("cancel")).reason in (pb.CANCEL_REASON_CANCELLED, pb.CANCEL_REASON_LOST)
    await reaches(app, made, Status.CANCELLED)


async def test_a_stream_that_is_broken_off_after_the_leave_is_not_closed(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with working(app) as first:
        welcome = await first.hello("k")
        [task] = await first.tasks()
        await first.say(leave=pb.Leave())
        [session] = _sessions(app)
        await eventually(lambda: session.leaving)
        # RST_STREAM: the worker may still run what it has.
        first.call.cancel()
        await eventually(lambda: not session.attached)
    assert not session.over
    async with working(app) as second:
        again = await second.hello("k", session=welcome.session, running=[attempt_of(task)])
        assert again.resumed
        assert await second.settle(done(task)) == {(task.id, 1): True}
        await second.say(leave=pb.Leave())
        # Closed in order, it is over.
        await second.call.done_writing()
        await eventually(lambda: session.over)
    await reaches(app, made, Status.DONE)


async def test_the_first_turns_result_is_not_taken_for_the_seconds(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with working(app) as first:
        welcome = await first.hello("k", slots=2)
        tasks = await first.hear("tasks")
        [task], [claim] = tasks.tasks, tasks.claims
        [session] = _sessions(app)
        await app.tasks.cancel(made.id)
        await first.hear("cancel")
        await reaches(app, made, Status.CANCELLED)
        # Its acknowledgement and the next turn are not read before the break; attempts are counted anew.
        await first.say(results=pb.Results(results=[done(task, '"old"')]))
        await eventually(lambda: not session._handed_out)
        await app.tasks.retry(made.id)
        await eventually(lambda: session._handed_out)
    await eventually(lambda: not session.attached)
    turn = pb.Attempt(task_id=task.id, attempt=1, claim=claim)
    async with working(app) as second:
        again = await second.hello("k", slots=2, session=welcome.session, running=[turn])
        assert again.resumed
        await second.say(results=pb.Results(results=[pb.Result(attempt=turn, result='"old"')]))
        cancel = await second.hear("cancel")
        assert (cancel.attempt, cancel.reason) == (turn, pb.CANCEL_REASON_LOST)
        said = [await second.hear(), await second.hear()]
        [settled] = [one for one in said if isinstance(one, pb.Settled)]
        assert [(one.attempt, one.accepted) for one in settled.results] == [(turn, False)]
        # The second turn never came: it is given back, and comes again.
        [[again_claim]] = [one.claims for one in said if isinstance(one, pb.Tasks)]
        assert again_claim != claim
        result = pb.Result(attempt=pb.Attempt(task_id=task.id, attempt=1, claim=again_claim), result='"new"')
        assert await second.settle(result) == {(task.id, 1): True}
    assert (await reaches(app, made, Status.DONE)).result == "new"


def _sessions(app: Taskd) -> list[Session]:
    return list(app.parts.worker.crews.sessions)  # type: ignore[union-attr]


async def test_what_is_not_the_sessions_is_to_be_stopped(app: Taskd) -> None:
    await app.tasks.create("t", kind="k")
    async with working(app) as first:
        welcome = await first.hello("k")
        await first.tasks()
    stranger = pb.Attempt(task_id="01a211b9-be6a-7676-8001-e2f5dfabcaed", attempt=1)
    async with working(app) as second:
        await second.hello("k", session=welcome.session, running=[stranger])
        cancel = await second.hear("cancel")
        assert (cancel.attempt, cancel.reason) == (stranger, pb.CANCEL_REASON_LOST)


async def test_a_session_is_its_users_own(app: Taskd) -> None:
    await app.tasks.create("t", kind="k")
    async with working(app) as first:
        welcome = await first.hello("k")
        [task] = await first.tasks()
    channel = grpc.aio.insecure_channel(app.grpc_address or "")
    try:
        other = Stream(channel, "thief")
        found = await other.hello("k", session=welcome.session, running=[attempt_of(task)])
        assert not found.resumed
        assert found.session != welcome.session
        assert await other.settle(done(task)) == {(task.id, 1): False}
    finally:
        await channel.close()


async def test_a_worker_that_does_not_come_back_loses_its_tasks_and_their_attempts(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with working(app) as first:
        await first.hello("k")
        await first.tasks()
    [session] = _sessions(app)
    await eventually(lambda: not session.attached)  # type: ignore[attr-defined]
    # As if its lease were over: what time would do.
    session._heard_at -= 1000  # type: ignore[attr-defined]
    async with working(app) as second:
        await second.hello("k")
        [task] = await second.tasks()
        assert (id_of(task), task.attempt, task.error.type) == (made.id, 2, "WorkerLost")
        await second.settle(done(task))
    assert (await reaches(app, made, Status.DONE)).attempt == 2


async def test_a_worker_that_is_silent_loses_its_stream(app: Taskd, stream: Stream) -> None:
    await app.tasks.create("t", kind="k")
    stream.answers_pings = False
    await stream.hello("k", lease=2.0)
    await stream.tasks()
    error = await stream.refused()
    assert error.code() is grpc.StatusCode.ABORTED
    assert "nothing was heard for 2 seconds" in (error.details() or "")


async def test_a_half_open_connection_gives_its_tasks_back(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    assert app.grpc_address is not None
    async with proxied(app.grpc_address) as proxy, working(None, proxy.address) as stranded:
        await stranded.hello("k", lease=2.0)
        await stranded.tasks()
        proxy.freeze()
        async with working(app) as other:
            await other.hello("k")
            [task] = await other.tasks()
            assert (id_of(task), task.attempt) == (made.id, 2)
            await other.settle(done(task))
    await reaches(app, made, Status.DONE)


async def test_a_second_stream_of_a_session_ends_the_first(app: Taskd, stream: Stream) -> None:
    await app.tasks.create("t", kind="k")
    welcome = await stream.hello("k", lease=2.0)
    [task] = await stream.tasks()
    async with working(app) as second:
        found = await second.hello("k", session=welcome.session, running=[attempt_of(task)])
        assert found.resumed
        assert (await stream.refused()).code() is grpc.StatusCode.ABORTED
        assert await second.settle(done(task)) == {(task.id, 1): True}


async def test_what_is_to_be_said_goes_over_the_last_stream(app: Taskd, stream: Stream) -> None:
    welcome = await stream.hello("k", slots=50, lease=300.0)
    async with working(app) as second:
        await second.hello("k", slots=50, lease=300.0, session=welcome.session)
        made = await app.tasks.create_many([{"title": f"{n}", "kind": "k"} for n in range(50)])
        assert {id_of(task) for task in await second.tasks(50)} == {task.id for task in made}
    assert (await stream.refused()).code() is grpc.StatusCode.ABORTED


async def test_a_worker_that_goes_away_while_it_is_written_to_ends_nothing_else(app: Taskd) -> None:
    description = "x" * 20_000
    for _ in range(5):
        await app.tasks.create_many([{"title": "t", "kind": "k", "description": description} for _ in range(200)])
        async with working(app) as gone:
            await gone.hello("k", slots=200)
            await gone.tasks()
    assert not app.failed.done()
    assert app.parts.health.ready()["workers"].ok
