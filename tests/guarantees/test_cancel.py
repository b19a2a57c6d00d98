"""A cancellation reaches a running handler within a second, wherever it runs."""

from __future__ import annotations

import asyncio
from typing import Any

from taskd import Context, Task, Taskd
from taskd.domain.codec import parse_time
from tests.running import Server, embedded
from tests.waiting import eventually


class Handlers:
    """Handlers that run until they are cancelled, and remember that they were."""

    def __init__(self) -> None:
        self.stopped: list[str] = []

    async def wait(self, task: Task, ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped.append(task.title)
            raise

    def wait_in_thread(self, task: Task, ctx: Context) -> None:
        while not ctx.wait_cancelled(60):
            """It looks as often as it likes."""
        self.stopped.append(task.title)

    def app(self, url: str, **settings: Any) -> Taskd:
        app = Taskd(database_url=url, http="127.0.0.1:0", **settings)
        app.handler("wait")(self.wait)
        app.handler("thread")(self.wait_in_thread)
        return app


async def _cancelled_in(front: Server, kind: str) -> float:
    """Cancel a task that runs; return the seconds until it had stopped, by the database's clock."""
    async with front.client() as client:
        path = f"/tasks/{(await client.post('/tasks', json={'title': kind, 'kind': kind})).json()['id']}"

        async def status_is(status: str) -> bool:
            return bool((await client.get(path)).json()["status"] == status)

        await eventually(lambda: status_is("running"))
        answer = await client.post(f"{path}/cancel")
        assert answer.status_code == 200
        assert answer.json()["status"] == "running"
        assert answer.json()["cancel_requested_at"] is not None
        await eventually(lambda: status_is("cancelled"))
        events = {event["type"]: event for event in (await client.get(f"{path}/events")).json()["events"]}
        begun, ended = events["updated"]["at"], events["cancelled"]["at"]
        assert events["cancelled"]["task"]["attempt"] == 1
        return _seconds(ended) - _seconds(begun)


def _seconds(at: str) -> float:
    return parse_time(at).timestamp()


async def test_in_the_same_process(database_url: str) -> None:
    handlers = Handlers()
    async with embedded(database_url, handlers.app(database_url)) as server:
        assert await _cancelled_in(server, "wait") < 1
        assert await _cancelled_in(server, "thread") < 1
    assert handlers.stopped == ["wait", "thread"]


async def test_in_another_process(database_url: str) -> None:
    handlers = Handlers()
    async with (
        embedded(database_url, handlers.app(database_url, role="worker")) as worker,
        embedded(database_url, role="api") as front,
    ):
        for server in (worker, front):
            assert server.app is not None
            # Each knows of the other after its next renewal.
            await eventually(lambda app=server.app: app.parts.keeper.others == 1)
        assert await _cancelled_in(front, "wait") < 1
        assert await _cancelled_in(front, "thread") < 1
    assert handlers.stopped == ["wait", "thread"]
