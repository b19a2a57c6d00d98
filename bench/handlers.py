"""A handler that tells when it began, for `bench.latency`: `TASKD_HANDLERS=bench.handlers`."""

from __future__ import annotations

import time

from taskd.domain.model import Task
from taskd.worker.context import Context
from taskd.worker.registry import handler


@handler("bench.noted")
async def noted(task: Task, context: Context) -> float:
    return time.time()
