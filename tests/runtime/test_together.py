"""What is waited for side by side."""

from __future__ import annotations

import asyncio

import pytest

from taskd.runtime.together import together


async def test_they_run_side_by_side() -> None:
    met = asyncio.Barrier(3)
    await together(met.wait(), met.wait(), met.wait())


async def test_the_first_error_is_raised_when_all_have_ended() -> None:
    go_on, ended = asyncio.Event(), []

    async def slow() -> None:
        await go_on.wait()
        ended.append("slow")
        raise ValueError("of the first")

    async def quick() -> None:
        go_on.set()
        raise ValueError("of the second")

    with pytest.raises(ValueError, match="of the first"):
        await together(slow(), quick())
    assert ended == ["slow"]


async def test_who_is_cancelled_cancels_them() -> None:
    begun, ended = asyncio.Event(), []

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("wait")

    waiting = asyncio.ensure_future(together(wait()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["wait"]
