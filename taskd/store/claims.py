"""The queue: who works on what, and how it ended. Implements the worker's `Queue`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from taskd.clock import Clock, monotonic
from taskd.domain.event import Event
from taskd.domain.model import FINAL, STATUSES, Status, Task
from taskd.domain.outcome import Ending, Outcome, Report
from taskd.metrics.catalog import Catalog
from taskd.runtime.batcher import Batcher
from taskd.store.passed import Look, Passed
from taskd.store.pool import Database, Row, nobody_asked
from taskd.store.rows import task_of
from taskd.store.statements import load

_SQL = load("claims")

PROMOTED_AT_ONCE = 1000
"""Tasks that one `promote` makes ready."""

HELD_ELSEWHERE = 2000
"""Tasks that other claims may hold at one moment, and that one which lost its race looks past."""


class ClaimStore:
    """The queue of one database. Outcomes and reports of many attempts share a statement.

    Every method raises `Unavailable` when the database is away; an outcome may then have been stored all the same,
    and giving it in again is refused.

    Args:
        committed: called after each commit that left an event.
        catalog: where waits, attempts and ends are counted, once they are committed.
        follows: whether `observe` is given each batch of the log, so that a claim may begin where the last one ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        database: Database,
        committed: Callable[[], None] = nobody_asked,
        catalog: Catalog | None = None,
        *,
        follows: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._database = database
        self._committed = committed
        self._catalog = catalog or Catalog()
        self._follows = follows
        self._clock = clock
        self._passed = Passed()
        self._finishes: Batcher[Outcome, Status | None] = Batcher(self.finish_many)
        self._reports: Batcher[Report, bool] = Batcher(self.report_many)

    async def close(self) -> None:
        """Finish what is under way, and take no more outcomes."""
        await self._finishes.close()
        await self._reports.close()

    async def claim(self, lease: UUID, kinds: Sequence[str], limit: int) -> list[Task]:
        """Return up to `limit` ready tasks of `kinds`, now running under `lease`: highest priority first, then oldest.

        A lease that is not registered or has expired gets none.
        """
        began, passed = self._clock(), self._passed
        look = passed.begin(kinds, began, follows=self._follows)
        try:
            claimed, wanted = await self._claim(lease, passed, look, limit, limit)
            if len(claimed) < wanted:
                # Others hold what was seen. Whoever looks further steps over that, to what was not among the best.
                left = limit - len(claimed)
                claimed += (await self._claim(lease, passed, look, left, left + HELD_ELSEWHERE))[0]
            return claimed
        finally:
            now = self._clock()
            passed.end(look, now - began, now)

    async def _claim(self, lease: UUID, passed: Passed, look: Look, limit: int, seen: int) -> tuple[list[Task], int]:
        """Return what was claimed, and how many had been seen, of `seen` at the most."""
        rows = await self._database.fetch(
            _SQL["claim"],
            lease,
            [one.kind for one in look.ranges],
            limit,
            [one.rank for one in look.ranges],
            [one.after for one in look.ranges],
            [one.last for one in look.ranges],
            seen,
        )
        claimed = [task_of(row) for row in rows if row["id"] is not None]
        passed.claimed(look, [(task.kind, -task.priority, task.id) for task in claimed])
        if claimed:
            self._committed()
            self._observe_waits(rows)
        return claimed, rows[0]["wanted"]

    def observe(self, events: Sequence[Event]) -> None:
        """Take note of what became ready; a listener of the feed, before whoever claims for it."""
        for event in events:
            task = event.task
            if task.status is Status.NEW and event.was is Status.NEW:
                self._passed.changed(task.kind, task.priority)
            elif task.status is Status.NEW:
                self._passed.readied(task.kind, task.priority, task.id)

    def begin_anew(self) -> None:
        """The database is another one: look from the front."""
        self._passed = Passed()

    def finish(self, outcome: Outcome) -> asyncio.Future[Status | None]:
        """Store how an attempt ended, and return what the task is now; None: refused, it no longer is that lease's."""
        return self._finishes.put(outcome)

    async def report(self, report: Report) -> bool:
        """Store a progress; False: the attempt no longer belongs to that lease."""
        return await self._reports.submit(report)

    async def promote(self) -> float | None:
        """Make due tasks ready.

        Returns:
            The seconds until the next one is due, 0 when more may be due now, None when none is scheduled.
        """
        row = await self._database.fetchrow(_SQL["promote"], PROMOTED_AT_ONCE)
        assert row is not None, "it is an aggregate"
        if row["promoted"]:
            self._committed()
        if row["promoted"] == PROMOTED_AT_ONCE:
            return 0.0
        return None if row["next_in"] is None else max(0.0, row["next_in"])

    async def waiting_kinds(self) -> list[str]:
        """Return the kinds that have ready tasks."""
        return [row["kind"] for row in await self._database.fetch(_SQL["waiting_kinds"])]

    async def finish_many(self, outcomes: Sequence[Outcome]) -> list[Status | None]:
        """Store outcomes in one statement; see `finish`. Of two for one attempt the first counts."""
        first: dict[tuple[UUID, int, UUID], Outcome] = {}
        for outcome in outcomes:
            first.setdefault((outcome.task_id, outcome.attempt, outcome.lease), outcome)
        batch = list(first.values())
        rows = await self._database.fetch(
            _SQL["finish"],
            [outcome.task_id for outcome in batch],
            [outcome.attempt for outcome in batch],
            [outcome.lease for outcome in batch],
            [outcome.ending.value for outcome in batch],
            [outcome.result_json for outcome in batch],
            # Few attempts fail, and what is not there costs as much as what is.
            _unless_null([outcome.error_type for outcome in batch]),
            _unless_null([outcome.error_message for outcome in batch]),
            _unless_null([outcome.delay or None for outcome in batch]),
        )
        if rows:
            self._committed()
        stored: dict[int, Status] = {}
        for number, kind, status_word, took in rows:
            outcome = batch[number - 1]
            status = stored[id(outcome)] = STATUSES[status_word]
            self._count_end(outcome.ending, status, kind, took)
        return [stored.pop(id(outcome), None) for outcome in outcomes]

    async def report_many(self, reports: Sequence[Report]) -> list[bool]:
        """Store reports in one statement; see `report`. Of several for one attempt only the last is stored."""
        last = {(report.task_id, report.attempt, report.lease): report for report in reports}
        batch = list(last.values())
        rows = await self._database.fetch(
            _SQL["report"],
            [report.task_id for report in batch],
            [report.attempt for report in batch],
            [report.lease for report in batch],
            [report.progress for report in batch],
            [report.note for report in batch],
        )
        if rows:
            self._committed()
        stored = {(row["task_id"], row["attempt"], row["lease"]) for row in rows}
        return [(report.task_id, report.attempt, report.lease) in stored for report in reports]

    def _observe_waits(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._catalog.wait.labels(row["kind"]).observe(max(0.0, row["waited"]))

    def _count_end(self, ending: Ending, status: Status, kind: str, took: float | None) -> None:
        if ending is not Ending.RELEASED and took is not None:
            self._catalog.processing.labels(kind).observe(max(0.0, took))
        if status in FINAL:
            self._catalog.finished.labels(kind, status.value).inc()


def _unless_null(values: list[Any]) -> list[Any]:
    return values if values.count(None) < len(values) else []
