"""One claimed task, on its way from the dispatcher to the pool."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from taskd.domain.model import Task


class Job(NamedTuple):
    """A task that runs in this process, under the lease that claimed it."""

    task: Task
    lease: UUID
    claim: int = 0
    """What a server that has it done here calls this turn."""

    @property
    def key(self) -> tuple[UUID, int]:
        """The task's id and the number of the attempt."""
        return self.task.id, self.task.attempt
