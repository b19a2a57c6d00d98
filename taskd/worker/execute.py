"""What an attempt goes through from its start until its outcome is stored and its slot is free again.

The outcome decides what a user sees, so much is done to store it: under a shield, so that a cancellation of the pool
does not tear it, and again and again while the database is away, until the lease is lost. After that it is somebody
else's task, and the database would refuse the outcome anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from uuid import UUID

from taskd.domain.model import Status
from taskd.domain.outcome import Ending, Outcome
from taskd.domain.retry import Retry
from taskd.errors import Rejected, Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.supervisor import Supervisor
from taskd.worker.attempt import BaseAttempt
from taskd.worker.plan import Stop, Verdict, judge
from taskd.worker.ports import Queue
from taskd.worker.result import Raised, error_message, error_type

logger = logging.getLogger("taskd.worker")

Answer = asyncio.Future[Status | None]
"""What the store says to an outcome."""

GRACE = 2.0
"""Seconds that a stopped handler has to tidy up before its outcome is stored without it."""

CANCELS = 3
"""How often a coroutine that goes on is cancelled, `GRACE` apart, before it is left behind."""


class Executor:
    """Runs attempts; one for all slots of a pool.

    Args:
        queue: where outcomes go.
        supervisor: owns what stores them.
        trusts: whether a lease is trusted now.
        on_scheduled: told in how many seconds a task of this process is due again.
        grace: see `GRACE`.
        outage: makes the pauses between attempts to store.
    """

    def __init__(
        self,
        queue: Queue,
        supervisor: Supervisor,
        trusts: Callable[[UUID], bool],
        on_scheduled: Callable[[float], None],
        *,
        grace: float = GRACE,
        outage: Callable[[], Backoff] = lambda: Backoff(0.1, 2.0),
    ) -> None:
        self.refused = 0
        """Outcomes that the store refused, because the attempt was no longer this lease's."""
        self.left_behind = 0
        """Coroutines that went on after all cancellations."""
        self._queue = queue
        self._supervisor = supervisor
        self._trusts = trusts
        self._on_scheduled = on_scheduled
        self._grace = grace
        self._outage = outage

    def begin(self, attempts: Iterable[BaseAttempt]) -> None:
        """Start attempts, but for those that are stopped or whose lease is not trusted; next look at how they are."""
        trusted: dict[UUID, bool] = {}
        for attempt in attempts:
            lease = attempt.job.lease
            if lease not in trusted:
                trusted[lease] = self._trusts(lease)
            if not trusted[lease]:
                attempt.stop(Stop.RELEASE)
            if attempt.stopped is None:
                attempt.start(self._supervisor)

    async def follow(self, attempt: BaseAttempt) -> None:
        """Wait for the end of an attempt that was begun, and store its outcome if it is anybody's business."""
        await attempt.wait()
        if attempt.ended is None and not await attempt.wait_end(self._grace):
            logger.warning("%s was stopped (%s) and goes on", _name(attempt), _why(attempt))
        outcome = self.judge(attempt)
        if outcome is not None:
            await self._store_unharmed(attempt, outcome)

    async def give_back(self, attempt: BaseAttempt, delay: float) -> None:
        """Give back the task of an attempt that nothing ran, to be due in so many seconds."""
        await self.store(attempt, _outcome(attempt, Verdict(Ending.RELEASED, delay=delay)))

    async def hold(self, attempt: BaseAttempt) -> None:
        """Wait until the attempt no longer uses its slot: a thread ends, a coroutine ends or is left behind."""
        if attempt.ended is not None or not attempt.started:
            return
        if attempt.in_thread:
            await attempt.wait_end(None)
            return
        for _ in range(CANCELS - 1):
            attempt.cancel_again()
            if await attempt.wait_end(self._grace):
                return
        self.left_behind += 1
        logger.error("%s ignores its cancellation; it is left behind, and its slot is used again", _name(attempt))

    def judge(self, attempt: BaseAttempt) -> Outcome | None:
        """Return what is to be stored of an attempt that has ended, was stopped or was not started, if anything."""
        verdict = judge(attempt.job.task.attempt, attempt.limits, attempt.stopped, attempt.ended)
        if verdict is None:
            logger.warning("%s was stopped: its lease is lost, and its outcome is not stored", _name(attempt))
            attempt.settled(False)
            return None
        _log_failure(attempt, verdict)
        return _outcome(attempt, verdict)

    def ask(self, outcome: Outcome) -> Answer | None:
        """Have an outcome stored; None: it can't be now. Whoever waits for the answer calls `stored` with it."""
        try:
            return self._queue.finish(outcome)
        except Unavailable:
            return None

    async def _store_unharmed(self, attempt: BaseAttempt, outcome: Outcome) -> None:
        """Store an outcome though this be cancelled. What goes well at once, as nearly all do, costs no task."""
        answer = self.ask(outcome)
        if answer is not None:
            try:
                await _answered(answer)
            except asyncio.CancelledError:
                self._supervisor.spawn(self.store(attempt, outcome, answer), "outcome")
                raise
            if answer.exception() is None:
                self.stored(attempt, outcome, answer.result())
                return
        await asyncio.shield(self._supervisor.spawn(self.store(attempt, outcome, answer), "outcome"))

    async def store(self, attempt: BaseAttempt, outcome: Outcome, answer: Answer | None = None) -> None:
        """Store an outcome, again and again in an outage; `answer` is that of a first try, if there was one."""
        pauses = self._outage()
        doubtful = False
        while True:
            try:
                first, answer = answer, None
                stored = await (first or self._queue.finish(outcome))
                break
            except Unavailable as error:
                if not doubtful:
                    logger.warning("%s: %s; storing its outcome again until it works", _name(attempt), error)
                doubtful = True
                if await attempt.wait_lost(pauses.next()):
                    logger.warning("%s: its lease is lost, and its outcome is not stored", _name(attempt))
                    attempt.settled(False)
                    return
            except Rejected as error:
                if outcome.ending is Ending.FAILED:
                    raise
                verdict = Verdict(Ending.FAILED, error_type=error_type(error), error_message=error_message(error))
                _log_failure(attempt, verdict)
                outcome = _outcome(attempt, verdict)
        self.stored(attempt, outcome, stored, doubtful=doubtful)

    def stored(
        self, attempt: BaseAttempt, outcome: Outcome, stored: Status | None, *, doubtful: bool = False
    ) -> None:
        """Take note of the answer to an outcome; `doubtful`: that of an earlier try is not known."""
        # What is refused after a doubt was most likely stored before.
        attempt.settled(stored is not None or doubtful)
        if stored is None:
            self._count_refused(attempt, doubtful)
        elif outcome.ending in (Ending.RETRY, Ending.RELEASED):
            self._on_scheduled(outcome.delay)

    def _count_refused(self, attempt: BaseAttempt, doubtful: bool) -> None:
        if doubtful:
            # The answer to an earlier try was lost; it may have been stored then.
            logger.info("%s: its outcome was stored before, or the attempt is another's now", _name(attempt))
            return
        self.refused += 1
        logger.warning("%s: its outcome was refused, the attempt is no longer this process's", _name(attempt))


async def _answered(answer: Answer) -> None:
    """Wait until there is an answer, and leave it alone when this is cancelled."""
    waiting: asyncio.Future[None] = answer.get_loop().create_future()

    def wake(_: Answer) -> None:
        if not waiting.done():
            waiting.set_result(None)

    answer.add_done_callback(wake)
    await waiting


def _outcome(attempt: BaseAttempt, verdict: Verdict) -> Outcome:
    # Its last fields are those of a verdict.
    task = attempt.job.task
    return Outcome(task.id, task.attempt, attempt.job.lease, *verdict)


def _name(attempt: BaseAttempt) -> str:
    task = attempt.job.task
    return f"task {task.id} ({task.kind}) attempt {task.attempt}"


def _why(attempt: BaseAttempt) -> str:
    return "not at all" if attempt.stopped is None else attempt.stopped.name.lower()


def _log_failure(attempt: BaseAttempt, verdict: Verdict) -> None:
    if verdict.ending not in (Ending.RETRY, Ending.FAILED):
        return
    ended = attempt.ended
    error = ended.error if isinstance(ended, Raised) and attempt.stopped is None else None
    then = f"again in {verdict.delay:.1f} s" if verdict.ending is Ending.RETRY else "it was the last attempt"
    logger.log(
        logging.WARNING if verdict.ending is Ending.RETRY else logging.ERROR,
        "%s failed: %s: %s; %s",
        _name(attempt),
        verdict.error_type,
        verdict.error_message,
        then,
        # A handler that asks for a retry knows why; the traceback of any other error is what its author needs.
        exc_info=None if error is None or isinstance(error, Retry) else error,
    )
