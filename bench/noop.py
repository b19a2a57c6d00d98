"""A handler that does nothing: what is left is what the queue itself costs."""

from __future__ import annotations

from taskd.domain.model import Task
from taskd.worker.context import Context
from taskd.worker.registry import handler


@handler("noop")
async def noop(task: Task, ctx: Context) -> None:
    """Do nothing."""
