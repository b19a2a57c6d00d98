"""A limit that does not run while the loop stands still."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from taskd.cache.patience import Patience


async def test_it_ends_a_wait_that_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(0.01):
            await asyncio.Event().wait()


async def test_what_is_in_time_is_left_alone_and_no_timer_stays() -> None:
    patience = Patience(3600)
    async with patience:
        await asyncio.sleep(0)
    assert patience._timer is not None
    assert patience._timer.cancelled()


async def test_errors_and_cancellations_pass() -> None:
    with pytest.raises(KeyError):
        async with Patience(3600):
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        async with Patience(3600):
            raise asyncio.CancelledError


async def test_an_answer_that_came_while_the_loop_was_blocked_is_in_time() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    def block() -> None:
        theirs.sendall(b"answer\n")
        # The loop stands still for ten times the limit.
        time.sleep(0.5)

    asyncio.get_running_loop().call_soon(block)
    async with Patience(0.05):
        assert await reader.readline() == b"answer\n"
        # What comes in many pieces takes some more turns.
        for _ in range(20):
            await asyncio.sleep(0)
    writer.close()
    await writer.wait_closed()
    theirs.close()
