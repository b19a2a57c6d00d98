"""A server process that is killed, and one in its place."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

from taskd.client import Client, Events, Worker
from taskd.domain.event import EventType
from taskd.domain.model import Status
from tests.client.peer import Handler, working
from tests.running import served
from tests.waiting import eventually


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


async def _until_all_done(events: Events, number: int) -> Counter[tuple[str, str]]:
    """Return how often each event of each task came, once so many tasks are done."""
    seen: Counter[tuple[str, str]] = Counter()
    async with asyncio.timeout(60):
        while sum(type_ == EventType.DONE for _, type_ in seen) < number:
            _, event = await anext(events)
            seen[str(event.task.id), event.type] += 1
    return seen


async def test_a_killed_server_stops_neither_events_nor_work_nor_waiting(database_url: str) -> None:
    address, handler = free_address(), Handler()
    flags = ("--role", "api", "--grpc", address)
    worker = Worker(address, user="ann", slots=5)
    worker.handler("work")(handler)
    async with Client(address, user="ann") as client, working(worker):
        async with served(database_url, *flags, handlers="") as first:
            events = client.events()
            await events.start()
            tasks = await client.create_many([{"title": "t", "kind": "work"}] * 5)
            waiting = [asyncio.create_task(client.wait(task.id)) for task in tasks]
            await eventually(lambda: len(handler.started) == 5)
            # Each waits once it has looked; one that nobody has answered yet would rather say so than wait.
            await eventually(lambda: first.has_answered("TaskService/GetTask", 5))
        # Killed. What runs has no server to go on for: it is stopped once the next one says so.
        async with served(database_url, *flags, handlers=""):
            await eventually(lambda: len(handler.started) == 10)
            assert len(handler.cancelled) == 5
            handler.let_go.set()
            ended = await asyncio.gather(*waiting)
            seen = await _until_all_done(events, 5)
    assert [(task.status, task.attempt) for task in ended] == [(Status.DONE, 2)] * 5
    for task in tasks:
        assert {type_: n for (id_, type_), n in seen.items() if id_ == str(task.id) and type_ != EventType.UPDATED} == {
            EventType.CREATED: 1,
            EventType.STARTED: 2,
            EventType.RETRYING: 1,
            EventType.DONE: 1,
        }
