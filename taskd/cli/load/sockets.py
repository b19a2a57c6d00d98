"""Sockets under load: how soon an event is there, and how many of them to how many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from taskd.cli.load.listener import Listener, task_of
from taskd.cli.load.rows import Row
from taskd.cli.load.target import Caller, Refused, Target
from taskd.cli.load.tasks import KIND, Progress, Tasks, created, together

STATUSES = ("scheduled",)
"""Of tasks that were made and wait: one event each."""

EVENTS = 200
"""Tasks that are made at once, whose events go to all sockets."""

COMES_WITHIN = 30.0
"""Seconds for an event to come."""

POSTERS = 16
"""Connections that tasks are made by, at the most, when one after the other would not be often enough."""


async def sockets(target: Target, tasks: Tasks, number: int, rate: float, seconds: float, tell: Progress) -> list[Row]:
    """Measure the time from a request to its event, and events to many sockets."""
    return [await latency(target, tasks, rate, seconds, tell), await fan_out(target, tasks, number, tell)]


async def latency(target: Target, tasks: Tasks, rate: float, seconds: float, tell: Progress) -> Row:
    """Make tasks at a rate, and see when one socket hears of each."""
    number = max(1, round(rate * seconds))
    row = Row(f"POST to event, {rate:g} tasks/s", "events/s")
    tell(f"{row.name}, {seconds:g} s")
    limited = target.limited
    mark, came, sent = tasks.mark_of("latency"), dict[str, float](), dict[str, float]()
    complete = asyncio.Event()

    def on_event(message: bytes, at: float) -> None:
        if mark in message:
            came.setdefault(task_of(message)["id"], at)
            if len(came) >= number:
                complete.set()

    listener = Listener(target, "bench-latency", on_event)
    body = target.request("POST", "/tasks", tasks.body(row="latency"))
    begun = perf_counter()
    turns = iter(range(number))

    async def post() -> None:
        async with Caller(target) as caller:
            for turn in turns:
                await asyncio.sleep(max(0.0, begun + turn / rate - perf_counter()))
                at = perf_counter()
                sent[created(await caller.send(body))["id"]] = at

    try:
        await listener.open(KIND, STATUSES)
        begun = perf_counter()
        await together(post() for _ in range(min(POSTERS, number)))
        late = f"{number - len(came)} of {number} events did not come in time"
        await listener.while_open(complete.wait(), COMES_WITHIN, late)
        row.times = [came[task_id] - at for task_id, at in sent.items() if task_id in came]
        row.value = number / (max(came.values()) - begun)
    except Refused as error:
        row.fault = str(error)
    finally:
        listener.close()
    row.number, row.limited = number, target.limited - limited
    return row


async def fan_out(target: Target, tasks: Tasks, number: int, tell: Progress) -> Row:
    """Make many tasks at once, and see when the last of all sockets has heard of the last of them."""
    row = Row(f"events to {number} sockets", "events/s", number=number * EVENTS)
    tell(f"opening {number} sockets")
    limited = target.limited
    mark = tasks.mark_of("fan-out")
    left, last = number * EVENTS, 0.0
    complete = asyncio.Event()

    def on_event(message: bytes, at: float) -> None:
        nonlocal left, last
        if mark in message:
            left, last = left - 1, at
            if left == 0:
                complete.set()

    all_of_them = [Listener(target, f"bench-{n}", on_event) for n in range(number)]
    try:
        for listener in all_of_them:
            await listener.open(KIND, STATUSES)
        _see_that_open(all_of_them)
        tell(f"{EVENTS} events to each of {number} sockets")
        begun = perf_counter()
        await tasks.make(EVENTS, row="fan-out")
        await _wait(complete, all_of_them)
        if left:
            raise Refused(f"{left} of {row.number} events did not come in time")
        row.value = row.number / (last - begun)
    except Refused as error:
        row.fault = str(error)
    finally:
        for listener in all_of_them:
            listener.close()
    row.limited = target.limited - limited
    return row


async def _wait(complete: asyncio.Event, listeners: Sequence[Listener]) -> None:
    """Wait until all has come, or one of the sockets is closed, or no longer."""
    waiting = asyncio.ensure_future(complete.wait())
    try:
        either: list[asyncio.Future[Any]] = [waiting, *(listener.closed for listener in listeners)]
        await asyncio.wait(either, timeout=COMES_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            _see_that_open(listeners)
    finally:
        waiting.cancel()


def _see_that_open(listeners: Sequence[Listener]) -> None:
    """Raise `Refused` if one is closed."""
    for listener in listeners:
        if listener.why_closed is not None:
            raise Refused(listener.why_closed)
