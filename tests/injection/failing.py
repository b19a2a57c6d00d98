"""A handler that fails with what it was given. Loaded by name."""

from __future__ import annotations

import json

from taskd import Context, Task, handler


@handler("hostile", max_attempts=1)
async def hostile(task: Task, ctx: Context) -> None:
    """Raise an error with the text of the payload in it."""
    text: str = json.loads(task.payload_json)["text"]
    await ctx.progress(0.5, text)
    raise RuntimeError(text)
