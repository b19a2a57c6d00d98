"""The worker's ports, modelled in memory: strict about leases and attempts, as the store is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from taskd.domain.lease import Renewal
from taskd.domain.model import Failure, Status, Task
from taskd.domain.outcome import Ending, Outcome, Report
from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.worker.registry import Registry
from taskd.worker.worker import Worker

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_task(kind: str = "work", **changes: Any) -> Task:
    """Return a ready task."""
    payload = json.dumps(changes.pop("payload", {}))
    task = Task(
        id=uuid4(),
        owner="ann",
        kind=kind,
        title="A task",
        description="",
        payload_json=payload,
        status=Status.NEW,
        priority=0,
        run_at=EPOCH,
        attempt=0,
        max_attempts=5,
        timeout_seconds=300.0,
        progress=None,
        progress_note=None,
        result_json=None,
        error=None,
        version=1,
        created_at=EPOCH,
        updated_at=EPOCH,
        started_at=None,
        finished_at=None,
        cancel_requested_at=None,
    )
    return replace(task, **changes)


class Memory:
    """Implements `Queue`, `Leases` and `Sweep`. `away` True: every call raises `Unavailable`."""

    def __init__(self) -> None:
        self.tasks: dict[UUID, Task] = {}
        self.holders: dict[UUID, UUID] = {}
        self.leases: set[UUID] = set()
        self.away = False
        self.claims: list[int] = []
        self.outcomes: list[tuple[Outcome, bool]] = []
        self.reports: list[tuple[Report, bool]] = []
        self.calls = 0
        self.lose_claim_answers = 0
        self.lose_finish_answers = 0

    def add(self, kind: str = "work", **changes: Any) -> UUID:
        task = make_task(kind, **changes)
        self.tasks[task.id] = task
        return task.id

    def status(self, task_id: UUID) -> Status:
        return self.tasks[task_id].status

    def _check(self) -> None:
        self.calls += 1
        if self.away:
            raise Unavailable("the database is away")

    async def claim(self, lease: UUID, kinds: Sequence[str], limit: int) -> list[Task]:
        self._check()
        assert limit > 0
        self.claims.append(limit)
        if lease not in self.leases:
            return []
        ready = [task for task in self.tasks.values() if task.status is Status.NEW and task.kind in kinds]
        taken = []
        for task in sorted(ready, key=lambda task: -task.priority)[:limit]:
            self.holders[task.id] = lease
            taken.append(self._put(task, status=Status.RUNNING, attempt=task.attempt + 1))
        if self.lose_claim_answers:
            self.lose_claim_answers -= 1
            raise Unavailable("the answer is lost")
        return taken

    def _put(self, task: Task, **changes: Any) -> Task:
        self.tasks[task.id] = replace(task, version=task.version + 1, **changes)
        return self.tasks[task.id]

    def _is_mine(self, given: Outcome | Report) -> bool:
        task = self.tasks[given.task_id]
        mine = self.holders.get(task.id) == given.lease and task.attempt == given.attempt
        return mine and task.status is Status.RUNNING

    def finish(self, outcome: Outcome) -> asyncio.Future[Status | None]:
        return asyncio.ensure_future(self._finish(outcome))

    async def _finish(self, outcome: Outcome) -> Status | None:
        self._check()
        await asyncio.sleep(0)
        mine = self._is_mine(outcome)
        self.outcomes.append((outcome, mine))
        if not mine:
            return None
        task = self.tasks[outcome.task_id]
        del self.holders[task.id]
        statuses = {Ending.DONE: Status.DONE, Ending.FAILED: Status.FAILED, Ending.CANCELLED: Status.CANCELLED}
        changes: dict[str, Any] = {"status": statuses.get(outcome.ending, Status.SCHEDULED)}
        if outcome.ending is Ending.RELEASED:
            changes["attempt"] = task.attempt - 1
        if outcome.ending is Ending.DONE:
            changes["result_json"] = outcome.result_json
        if outcome.error_type is not None:
            changes["error"] = Failure(outcome.error_type, outcome.error_message or "", task.attempt, EPOCH)
        stored = self._put(task, **changes)
        if self.lose_finish_answers:
            self.lose_finish_answers -= 1
            raise Unavailable("the answer is lost")
        return stored.status

    async def report(self, report: Report) -> bool:
        self._check()
        await asyncio.sleep(0)
        mine = self._is_mine(report)
        self.reports.append((report, mine))
        if mine:
            self._put(self.tasks[report.task_id], progress=report.progress, progress_note=report.note)
        return mine

    async def promote(self) -> float | None:
        self._check()
        for task in list(self.tasks.values()):
            if task.status is Status.SCHEDULED:
                self._put(task, status=Status.NEW)
        return None

    async def waiting_kinds(self) -> list[str]:
        self._check()
        return sorted({task.kind for task in self.tasks.values() if task.status is Status.NEW})

    async def register(self, lease: UUID, role: str, name: str) -> None:
        self._check()
        self.leases.add(lease)

    async def renew(self, lease: UUID) -> Renewal:
        self._check()
        if lease not in self.leases:
            return Renewal(False, 0, ())
        asked = [
            (task.id, task.attempt)
            for task in self.tasks.values()
            if self.holders.get(task.id) == lease and task.cancel_requested_at is not None
        ]
        return Renewal(True, len(self.leases) - 1, tuple(asked))

    async def end(self, lease: UUID) -> None:
        self._check()
        self.leases.discard(lease)

    async def rescue(self, limit: int) -> int:
        self._check()
        lost = [task_id for task_id, lease in self.holders.items() if lease not in self.leases][:limit]
        for task_id in lost:
            del self.holders[task_id]
            self._put(self.tasks[task_id], status=Status.SCHEDULED)
        return len(lost)

    async def delete_finished(self, limit: int) -> int:
        self._check()
        return 0

    async def fold_totals(self) -> int:
        self._check()
        return 0

    async def rotate_events(self) -> None:
        self._check()


class Rig:
    """A worker on a `Memory`."""

    def __init__(self, slots: int = 4, grace: float = 0.05, clock: Callable[[], float] | None = None) -> None:
        self.store = Memory()
        self.registry = Registry()
        self.supervisor = Supervisor()
        options = {} if clock is None else {"clock": clock}
        store = self.store
        self.worker = Worker(
            store, store, store, self.registry, self.supervisor, slots=slots, name="test", grace=grace, **options
        )


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """Run a rig's worker; at the end nothing may have died or be left."""
    before = asyncio.all_tasks()
    try:
        await rig.worker.start()
        yield rig
        assert not rig.supervisor.failed.done()
    finally:
        rig.store.away = False
        await rig.worker.stop()
        await rig.supervisor.stop()
    assert asyncio.all_tasks() - before == set()
    assert rig.store.leases == set()
