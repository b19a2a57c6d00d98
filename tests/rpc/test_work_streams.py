"""Streams of workers that break, hang or are replaced, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from taskd import Taskd
from taskd.domain.codec import task_text
from taskd.domain.model import Status, Task, User
from taskd.rpc.calls import Answer
from taskd.rpc.work import WorkCalls
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.crews import Crews
from tests.client.proxy import proxied
from tests.rpc.working import attempt_of, done, id_of, working
from tests.waiting import eventually
from tests.worker.model import Rig, running

STRANGER = pb.Attempt(task_id="01a211b9-be6a-7676-8001-e2f5dfabcaed", attempt=1)


def crews_of(app: Taskd) -> Crews:
    found: Crews = app.parts.worker.crews  # type: ignore[union-attr]
    return found


async def ended(app: Taskd, task: Task) -> Task | None:
    found = await app.tasks.get(task.id)
    return found if found.status is Status.DONE else None


async def test_a_stream_that_was_replaced_is_told_nothing_more(app: Taskd) -> None:
    async with working(app) as first, working(app) as second:
        # So long a lease that only the new stream can end the first.
        welcome = await first.hello("k", slots=20, lease=300.0)
        again = await second.hello("k", slots=20, lease=300.0, session=welcome.session, running=[STRANGER])
        assert again.resumed
        # Said at the very moment at which the one stream took the place of the other.
        assert (await second.hear("cancel")).attempt == STRANGER
        await app.tasks.create_many([{"title": f"{n}", "kind": "k"} for n in range(20)])
        assert len(await second.tasks(20)) == 20
        error = await first.refused()
        assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "this worker has opened another stream")


async def test_a_message_that_nobody_takes_any_more_ends_the_stream_and_nothing_else() -> None:
    rig = Rig()
    says: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()

    async def requests() -> AsyncIterator[pb.WorkRequest]:
        while True:
            yield await says.get()

    async def send(answer: Answer) -> None:
        if isinstance(answer, pb.WorkResponse) and not answer.HasField("welcome"):
            raise grpc.aio.InternalError("the connection broke while this was written")

    async with running(rig):
        task_id = rig.store.add()
        says.put_nowait(pb.WorkRequest(hello=pb.Hello(kinds=["work"], slots=1)))
        with pytest.raises(grpc.aio.InternalError):
            await WorkCalls(rig.worker.crews, rig.supervisor).work(User("worker"), requests(), send)
        assert not rig.supervisor.failed.done()
        [session] = rig.worker.crews.sessions
        assert (session.attached, session.pool.busy, rig.store.status(task_id)) == (False, 1, Status.RUNNING)


async def test_a_worker_that_reads_nothing_loses_its_tasks_to_others(app: Taskd) -> None:
    large = {"kind": "k", "payload": {"x": "x" * 200_000}}
    async with proxied(app.grpc_address or "") as proxy, working(None, proxy.address) as deaf:
        await deaf.hello("k", slots=40, lease=2.0)
        proxy.freeze(answers_only=True)
        made = await app.tasks.create_many([{"title": f"{n}", **large} for n in range(20)])
        await eventually(lambda: crews_of(app).busy == 20)
        async with working(app) as other:
            await other.hello("k", slots=40)
            tasks = await other.tasks(20)
            assert {id_of(task) for task in tasks} == {task.id for task in made}
            assert {task.attempt for task in tasks} == {2}
            await other.settle(*map(done, tasks))


async def test_a_worker_whose_connection_breaks_while_it_leaves_finishes_what_it_has(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with proxied(app.grpc_address or "") as proxy, working(None, proxy.address) as first:
        welcome = await first.hello("k")
        [task] = await first.tasks()
        [session] = crews_of(app).sessions
        await first.say(leave=pb.Leave())
        await eventually(lambda: session.leaving)
        proxy.cut()
        await eventually(lambda: not session.attached)
        async with working(app) as second:
            found = await second.hello("k", session=welcome.session, running=[attempt_of(task)])
            assert found.resumed
            assert await second.settle(done(task)) == {(task.id, 1): True}
    assert (await eventually(lambda: ended(app, made))).attempt == 1  # type: ignore[union-attr]


async def test_a_result_is_one_line_and_otherwise_as_it_was_written(app: Taskd) -> None:
    made = await app.tasks.create("t", kind="k")
    async with working(app) as stream:
        await stream.hello("k")
        [task] = await stream.tasks()
        written = '{\r\n\t"a": [1.10, 1e2,\n12345678901234567890],\n"b": "x\\ny\u2028"}\n'
        await stream.settle(done(task, written))
    found = await eventually(lambda: ended(app, made))
    assert isinstance(found, Task)
    assert found.result_json == '{  \t"a": [1.10, 1e2, 12345678901234567890], "b": "x\\ny\u2028"} '
    assert not {"\n", "\r"} & set(task_text(found))
