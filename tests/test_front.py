"""The hub of WebSockets is made when the first one is asked for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from taskd.front import Sockets

HEAD: Any = object()


class Hub:
    """Counts."""

    def __init__(self) -> None:
        self.started = self.stopped = 0

    def start(self) -> None:
        self.started += 1

    async def stop(self, within: float) -> None:
        self.stopped += 1

    async def admit(self, head: Any, peer: str) -> str:
        return peer


def sockets() -> tuple[Sockets, list[Hub]]:
    made: list[Hub] = []

    def make() -> Any:
        made.append(Hub())
        return made[-1]

    return Sockets(make), made


async def test_those_that_come_at_once_share_one() -> None:
    found, made = sockets()
    found.start()
    assert found.hub is None
    await asyncio.gather(*(found.admit(HEAD, "peer") for _ in range(5)))
    await found.admit(HEAD, "peer")
    assert (len(made), made[0].started) == (1, 1)
    await found.stop(0)
    assert made[0].stopped == 1


async def test_without_any_there_is_nothing_to_stop() -> None:
    found, made = sockets()
    found.start()
    await found.stop(0)
    assert not made


async def test_one_that_comes_after_the_end_finds_a_hub_that_takes_nothing() -> None:
    found, made = sockets()
    found.start()
    await found.stop(0)
    await found.admit(HEAD, "peer")
    assert made[0].started == 0


async def test_one_that_comes_in_the_moment_of_the_end_leaves_nothing_behind() -> None:
    found, made = sockets()
    found.start()
    coming = asyncio.create_task(found.admit(HEAD, "peer"))
    await asyncio.sleep(0)
    await found.stop(0)
    await coming
    assert (made[0].started, made[0].stopped) == (0, 1)


async def test_the_first_waits_for_no_handler_that_has_a_thread() -> None:
    go = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        handler = asyncio.create_task(asyncio.to_thread(go.wait))
        found, made = sockets()
        try:
            await asyncio.wait_for(found.admit(HEAD, "peer"), 20)
        finally:
            go.set()
        await handler
    assert len(made) == 1
