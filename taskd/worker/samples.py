"""Sample handlers, to try taskd with: `TASKD_HANDLERS=taskd.worker.samples`.

    echo    returns its payload
    sleep   takes `seconds` (default 1), reports progress ten times
    flaky   fails `failures` times (default 1), then succeeds
    fail    always fails, with `message`
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from taskd.domain.model import Task
from taskd.worker.context import Context
from taskd.worker.registry import handler

STEPS = 10
LONGEST = 86_400


def _number(task: Task, name: str, default: float, most: float) -> float:
    value = task.payload.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"payload.{name} must be a number between 0 and {most:g}")
    return value


@handler("echo")
async def echo(task: Task, ctx: Context) -> dict[str, Any]:
    """Return the payload."""
    return task.payload


@handler("sleep", timeout=LONGEST + 60)
async def sleep(task: Task, ctx: Context, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> dict[str, Any]:
    """Wait for `seconds`, and say after each tenth how far it is."""
    seconds = _number(task, "seconds", 1, LONGEST)
    for step in range(1, STEPS + 1):
        await pause(seconds / STEPS)
        await ctx.progress(step / STEPS, f"{step} of {STEPS}")
    return {"slept": seconds}


@handler("flaky")
async def flaky(task: Task, ctx: Context) -> dict[str, Any]:
    """Fail `failures` times, then return which attempt did it."""
    failures = _number(task, "failures", 1, 100)
    if ctx.attempt <= failures:
        raise RuntimeError(f"failure {ctx.attempt} of {failures:g}, as asked")
    return {"attempts": ctx.attempt}


@handler("fail")
async def fail(task: Task, ctx: Context) -> None:
    """Fail."""
    raise RuntimeError(str(task.payload.get("message", "this kind always fails")))
