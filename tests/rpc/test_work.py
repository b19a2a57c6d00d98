"""`WorkerService`, message by message, against a real server and database."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from taskd import Taskd
from taskd.domain.model import Status, Task
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.working import Stream, attempt_of, done, failed, id_of, reaches, released, working
from tests.running import embedded
from tests.waiting import eventually


async def test_a_task_is_worked_on_elsewhere(app: Taskd, stream: Stream) -> None:
    made = await app.tasks.create("t", kind="k", payload={"n": 2**60})
    welcome = await stream.hello("k")
    assert welcome.session
    assert (welcome.resumed, welcome.lease.seconds) == (False, 30)
    [task] = await stream.tasks()
    assert (id_of(task), task.attempt, task.status) == (made.id, 1, pb.TASK_STATUS_RUNNING)
    assert json.loads(task.payload) == {"n": 2**60}
    half = pb.AttemptProgress(attempt=attempt_of(task), fraction=0.5, note="½")
    await stream.say(progress=pb.Progress(reports=[half]))
    await eventually(lambda: _has_progress(app, made))
    assert await stream.settle(done(task, '{"ok":true}')) == {(task.id, 1): True}
    found = await reaches(app, made, Status.DONE)
    assert (found.result, found.progress, found.progress_note) == ({"ok": True}, 0.5, "½")


async def _has_progress(app: Taskd, task: Task) -> bool:
    return (await app.tasks.get(task.id)).progress == 0.5


async def test_there_are_never_more_tasks_than_slots(app: Taskd, stream: Stream) -> None:
    await app.tasks.create_many([{"title": f"{n}", "kind": "k"} for n in range(20)])
    await stream.hello("k", slots=3)
    held = {task.id: task for task in await stream.tasks(3)}
    seen = set(held)
    while len(seen) < 20:
        assert len(held) == 3
        await stream.settle(done(held.pop(next(iter(held)))))
        for task in await stream.tasks():
            held[task.id] = task
            assert task.id not in seen
            seen.add(task.id)
    assert len(held) == 3
    assert await stream.settle(*map(done, held.values())) == {(task_id, 1): True for task_id in held}


async def test_the_best_come_first_and_only_of_its_kinds(app: Taskd, stream: Stream) -> None:
    for priority in (0, 5, -5):
        await app.tasks.create(f"{priority}", kind="k", priority=priority)
    other = await app.tasks.create("other", kind="other")
    await stream.hello("k", "l", slots=1)
    order = []
    for _ in range(3):
        [task] = await stream.tasks()
        order.append(task.title)
        await stream.settle(done(task))
    assert order == ["5", "0", "-5"]
    assert (await app.tasks.get(other.id)).status is Status.NEW


async def test_a_task_that_becomes_ready_is_handed_out_without_a_look(
    app: Taskd, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("dispatcher", "plan"):
        monkeypatch.setattr(f"taskd.worker.{module}.POLL", 3600.0)
    await stream.hello("k")
    await eventually(lambda: app.parts.worker.slots == 4)  # type: ignore[union-attr]
    for _ in range(3):
        made = await app.tasks.create("t", kind="k")
        [task] = await stream.tasks()
        assert id_of(task) == made.id
        await stream.settle(done(task))


async def test_failures_are_tried_again_as_the_worker_says(app: Taskd, stream: Stream) -> None:
    again = await app.tasks.create("again", kind="k")
    await stream.hello("k", slots=1)
    [task] = await stream.tasks()
    later = pb.AttemptFailure(type="Oops", message="no luck")
    later.retry_after.FromSeconds(0)
    await stream.settle(pb.Result(attempt=attempt_of(task), failure=later))
    [task] = await stream.tasks()
    assert (id_of(task), task.attempt, task.error.type, task.error.message) == (again.id, 2, "Oops", "no luck")
    await stream.settle(failed(task, final=True))
    found = await reaches(app, again, Status.FAILED)
    assert (found.attempt, found.max_attempts) == (2, 5)


async def test_what_was_given_back_is_unspent(app: Taskd, stream: Stream) -> None:
    made = await app.tasks.create("t", kind="k", max_attempts=1)
    await stream.hello("k", slots=1)
    [first] = await stream.tasks()
    assert await stream.settle(released(first)) == {(first.id, 1): True}
    [second] = await stream.tasks()
    assert (id_of(second), second.attempt) == (made.id, 1)
    await stream.settle(done(second))
    await reaches(app, made, Status.DONE)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 70 + "]" * 70, '"\\ud800"', f'"{"x" * 1024 * 1024}"'])
async def test_a_result_that_cannot_be_stored_fails_the_attempt_in_words(
    app: Taskd, stream: Stream, text: str
) -> None:
    made = await app.tasks.create("t", kind="k", max_attempts=1)
    await stream.hello("k")
    [task] = await stream.tasks()
    assert await stream.settle(done(task, text)) == {(task.id, 1): True}
    found = await reaches(app, made, Status.FAILED)
    assert found.error is not None
    assert (found.error.type, "the result" in found.error.message) == ("ResultError", True)


async def test_a_result_of_no_attempt_of_its_own_is_refused(app: Taskd, stream: Stream) -> None:
    made = await app.tasks.create("t", kind="k")
    await stream.hello("k", slots=1)
    [task] = await stream.tasks()
    wrong = pb.Task(id=task.id, attempt=2)
    async with working(app) as other:
        await other.hello("k", slots=1)
        assert await other.settle(done(task), done(wrong)) == {(task.id, 1): False, (task.id, 2): False}
    assert await stream.settle(done(task)) == {(task.id, 1): True}
    assert await stream.settle(done(task)) == {(task.id, 1): False}
    assert (await reaches(app, made, Status.DONE)).version == 3
    assert app.parts.worker.refused == 3  # type: ignore[union-attr]


async def test_a_cancelled_task_is_to_be_stopped(app: Taskd, stream: Stream) -> None:
    made = await app.tasks.create("t", kind="k")
    await stream.hello("k")
    [task] = await stream.tasks()
    await app.tasks.cancel(made.id)
    cancel = await stream.hear("cancel")
    assert (cancel.attempt.task_id, cancel.attempt.attempt) == (task.id, 1)
    assert cancel.reason == pb.CANCEL_REASON_CANCELLED
    assert await stream.settle(released(task)) == {(task.id, 1): True}
    await reaches(app, made, Status.CANCELLED)


async def test_an_attempt_that_takes_too_long_is_to_be_stopped_and_keeps_its_slot(app: Taskd, stream: Stream) -> None:
    made = await app.tasks.create("t", kind="k", timeout_seconds=0.01, max_attempts=1)
    await stream.hello("k", slots=1)
    [task] = await stream.tasks()
    assert (await stream.hear("cancel")).reason == pb.CANCEL_REASON_TIMEOUT
    found = await reaches(app, made, Status.FAILED)
    assert found.error is not None
    assert found.error.type == "TimeoutError"
    waits = await app.tasks.create("next", kind="k")
    assert app.parts.worker.crews.busy == 1  # type: ignore[union-attr]
    await stream.say(results=pb.Results(results=[released(task)]))
    settled, tasks = await stream.hear(), await stream.hear()
    if isinstance(settled, pb.Tasks):
        settled, tasks = tasks, settled
    assert [one.accepted for one in settled.results] == [False]
    assert [id_of(one) for one in tasks.tasks] == [waits.id]


def _sessions(app: Taskd) -> list[object]:
    return list(app.parts.worker.crews.sessions)  # type: ignore[union-attr]


async def test_who_leaves_gets_no_more_and_gives_back_what_is_left(app: Taskd, stream: Stream) -> None:
    first = await app.tasks.create("first", kind="k", max_attempts=1)
    await stream.hello("k")
    [task] = await stream.tasks()
    await stream.say(leave=pb.Leave())
    await eventually(lambda: _sessions(app)[0].leaving)  # type: ignore[attr-defined]
    second = await app.tasks.create("second", kind="k")
    async with working(app) as other:
        await other.hello("k", slots=1)
        [taken] = await other.tasks()
        # A claim that was under way may have got it, for nobody: its attempt is not spent.
        assert (id_of(taken), taken.attempt) == (second.id, 1)
        await other.settle(done(taken))
        await stream.call.done_writing()
        # What says nothing, by which the server sees that the worker is still there; and no task before it.
        assert not (await stream.hear("settled")).results
        with pytest.raises(EOFError):
            await stream.hear()
        [left] = await other.tasks()
        assert (id_of(left), left.attempt, task.attempt) == (first.id, 1, 1)


async def test_the_servers_end_is_told_and_what_is_not_done_is_given_back(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0", shutdown_seconds=30) as server:
        app = server.app
        assert app is not None
        made = [await app.tasks.create(f"{n}", kind="k", max_attempts=1) for n in range(2)]
        async with working(app) as stream:
            await stream.hello("k", slots=2)
            tasks = {id_of(task): task for task in await stream.tasks(2)}
            stopping = asyncio.create_task(app.stop())
            assert (await stream.hear("drain")).within.seconds == 30
            late = await app.tasks.create("late", kind="k")
            # What is done in time counts.
            assert await stream.settle(done(tasks[made[0].id])) == {(str(made[0].id), 1): True}
            app.hurry()
            assert (await stream.hear("cancel")).reason == pb.CANCEL_REASON_RELEASED
            assert await stream.settle(released(tasks[made[1].id])) == {(str(made[1].id), 1): True}
            error = await stream.refused()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await stopping
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        found = [await server.app.tasks.get(task.id) for task in made]
        assert [(task.status, task.attempt) for task in found] == [(Status.DONE, 1), (Status.NEW, 0)]
        assert (await server.app.tasks.get(late.id)).version == 1


async def test_a_hundred_workers_of_one_kind_make_few_claims(app: Taskd) -> None:
    claims = app.parts.catalog.query_seconds.labels("claims.claim")
    async with working(app) as one:
        channel = grpc.aio.insecure_channel(app.grpc_address or "")
        streams = [one, *(Stream(channel) for _ in range(99))]
        for stream in streams:
            await stream.hello("k", slots=1)
        assert app.parts.worker.slots == 100  # type: ignore[union-attr]
        before = claims.count
        await app.tasks.create_many([{"title": f"{n}", "kind": "k"} for n in range(100)])
        got = await asyncio.gather(*(stream.tasks() for stream in streams))
        assert len({task.id for tasks in got for task in tasks}) == 100
        assert claims.count - before < 20
        await channel.close()


async def test_tasks_are_shared_by_who_has_most_room(app: Taskd) -> None:
    async with working(app) as large, working(app) as small:
        await large.hello("k", slots=6)
        await small.hello("k", slots=2)
        await app.tasks.create_many([{"title": f"{n}", "kind": "k"} for n in range(4)])
        assert len(await large.tasks(4)) == 4


async def test_an_api_process_keeps_the_house_for_its_workers(app: Taskd, stream: Stream) -> None:
    await stream.hello("k")
    made = await app.tasks.create("t", kind="k", run_at="2001-01-01T00:00:00Z")
    [task] = await stream.tasks()
    assert id_of(task) == made.id
    health = app.parts.health.ready()["workers"]
    assert health.ok
    assert health.detail == "1 of 4 slots busy"
    await stream.settle(failed(task, retry_after={"nanos": 1000}))
    [task] = await stream.tasks()
    assert task.attempt == 2


async def test_a_task_that_was_cancelled_and_retried_waits_for_the_worker_to_end_the_first_turn(
    app: Taskd, stream: Stream
) -> None:
    made = await app.tasks.create("t", kind="k")
    await stream.hello("k", slots=2)
    [first] = await stream.tasks()
    await app.tasks.cancel(made.id)
    await stream.hear("cancel")
    # The worker does not answer: it is judged without its word, and its user has it run anew.
    await reaches(app, made, Status.CANCELLED)
    await app.tasks.retry(made.id)
    await reaches(app, made, Status.RUNNING)
    await stream.say(results=pb.Results(results=[done(first, '"old"')]))
    settled, tasks = await stream.hear(), await stream.hear()
    if isinstance(settled, pb.Tasks):
        settled, tasks = tasks, settled
    assert [one.accepted for one in settled.results] == [False]
    [second] = tasks.tasks
    assert (id_of(second), second.attempt) == (made.id, 1)
    assert await stream.settle(done(second, '"new"')) == {(second.id, 1): True}
    assert (await reaches(app, made, Status.DONE)).result == "new"
    await eventually(lambda: app.parts.worker.busy == 0)  # type: ignore[union-attr]
