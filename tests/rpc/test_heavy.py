"""What is large is translated apart from the event loop, one at a time."""

from __future__ import annotations

import asyncio
import threading

from taskd.rpc.heavy import LARGE, Heavy
from tests.waiting import eventually


async def test_small_things_are_translated_at_once() -> None:
    assert await Heavy().run(LARGE, threading.get_ident) == threading.get_ident()


async def test_the_event_loop_turns_while_large_things_are_translated_one_at_a_time() -> None:
    heavy = Heavy()
    gate = threading.Event()
    begun: list[int] = []

    def translate(number: int) -> int:
        begun.append(number)
        assert gate.wait(30)
        return number

    calls = [asyncio.create_task(heavy.run(LARGE + 1, lambda n=n: translate(n))) for n in range(3)]  # type: ignore[misc]
    await eventually(lambda: begun == [0])
    # The loop turns, or this would not be reached; and small things don't wait.
    assert await heavy.run(1, lambda: "small") == "small"
    assert begun == [0]
    gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2]


async def test_what_goes_wrong_goes_to_who_asked() -> None:
    heavy = Heavy()

    def fail() -> None:
        raise KeyError("no")

    results = await asyncio.gather(heavy.run(LARGE + 1, fail), heavy.run(LARGE + 1, lambda: 1), return_exceptions=True)
    assert isinstance(results[0], KeyError)
    assert results[1] == 1
