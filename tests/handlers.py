"""Handlers that tests load with `TASKD_HANDLERS=tests.handlers`."""

from __future__ import annotations

from taskd import Context, Task, handler


@handler("sleep")
async def quick_sleep(task: Task, ctx: Context) -> dict[str, bool]:
    """Stands for the sample of this kind, without its wait."""
    return {"quick": True}
