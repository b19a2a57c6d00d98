"""The slots of a worker elsewhere: so many handlers run at once, whichever session their tasks came by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from taskd.client.session import STOPS, Session, attempt_message, key_of
from taskd.domain.model import Task
from taskd.domain.outcome import Ending
from taskd.domain.retry import Retry
from taskd.rpc.messages import duration
from taskd.runtime.supervisor import Supervisor
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.attempt import Attempt
from taskd.worker.context import Context
from taskd.worker.execute import CANCELS, GRACE
from taskd.worker.job import Job
from taskd.worker.plan import Limits, Stop, Verdict, judge, limits_of
from taskd.worker.registry import Handler, Registry
from taskd.worker.result import Raised

logger = logging.getLogger("taskd.client")


class Hands:
    """Runs attempts, each until its handler has really ended: only then its result is owed, and its slot free.

    Args:
        registry: the handlers.
        supervisor: owns the attempts.
        slots: handlers that run at once.
        on_free: called when a slot becomes free.
        grace: seconds between cancellations of a coroutine that goes on.
    """

    def __init__(
        self,
        registry: Registry,
        supervisor: Supervisor,
        slots: int,
        on_free: Callable[[], None],
        *,
        grace: float = GRACE,
    ) -> None:
        self.slots = slots
        self.busy = 0
        """Slots in use, also by handlers whose session is gone."""
        self.left_behind = 0
        """Coroutines that went on after all cancellations."""
        self._registry = registry
        self._supervisor = supervisor
        self._on_free = on_free
        self._grace = grace

    def take(self, session: Session, task: Task, claim: int = 0) -> None:
        """Run an attempt of a task, or give it back if it can't be run."""
        job = Job(task, session.local_id, claim)
        handler = self._registry.get(task.kind)
        refusal = None
        if session.leaving:
            refusal = "the worker stops"
        elif handler is None:
            refusal = f"there is no handler for its kind, {task.kind}"
        elif self.busy >= self.slots:
            refusal = "all slots are in use"
        if handler is None or refusal is not None:
            logger.log(
                logging.INFO if session.leaving else logging.ERROR, "task %s is given back: %s", task.id, refusal
            )
            session.owe(job.key, pb.Result(attempt=attempt_message(job.key, job.claim), released=pb.Released()))
            return
        attempt = Attempt(job, handler, _limits(task, handler), Context(job, session))
        session.begin(attempt)
        self.busy += 1
        self._supervisor.spawn(self._run(session, attempt), f"attempt of {task.kind}")

    def stop(self, session: Session, message: pb.Cancel) -> None:
        """Stop an attempt as its server asks; one that is not known here is given back."""
        key = key_of(message.attempt)
        attempt = session.running.get(key)
        if attempt is not None and message.attempt.claim in (0, attempt.job.claim):
            attempt.stop(STOPS.get(message.reason, Stop.CANCEL))
        elif attempt is None and key not in session.owed:
            session.owe(key, pb.Result(attempt=message.attempt, released=pb.Released()))

    async def _run(self, session: Session, attempt: Attempt) -> None:
        try:
            if attempt.stopped is None:
                attempt.start(self._supervisor)
                await attempt.wait()
                await self._hold(attempt)
        finally:
            self.busy -= 1
        session.end(attempt.job.key, self._result(attempt))
        self._on_free()

    async def _hold(self, attempt: Attempt) -> None:
        """Wait until the handler has ended: a thread as long as it takes, a coroutine until it is left behind."""
        if attempt.in_thread:
            await attempt.wait_end(None)
            return
        for tries in range(CANCELS):
            if await attempt.wait_end(self._grace):
                return
            if tries + 1 < CANCELS:
                attempt.cancel_again()
        self.left_behind += 1
        logger.error("%s ignores its cancellation; it is left behind, and its slot is used again", _name(attempt))

    def _result(self, attempt: Attempt) -> pb.Result:
        job = attempt.job
        verdict = judge(job.task.attempt, attempt.limits, attempt.stopped, attempt.ended)
        if verdict is not None:
            _log_failure(attempt, verdict)
        return result_message(attempt, verdict)


def result_message(attempt: Attempt, verdict: Verdict | None) -> pb.Result:
    """Return what a server is told of an attempt. To one that it stopped, any word will do: it knows what becomes."""
    result = pb.Result(attempt=attempt_message(attempt.job.key, attempt.job.claim))
    if verdict is None or verdict.ending in (Ending.RELEASED, Ending.CANCELLED):
        result.released.SetInParent()
    elif verdict.ending is Ending.DONE:
        result.result = verdict.result_json or "null"
    else:
        result.failure.type = verdict.error_type or ""
        result.failure.message = verdict.error_message or ""
        if verdict.ending is Ending.RETRY:
            result.failure.retry_after.CopyFrom(duration(verdict.delay))
        else:
            result.failure.final = True
    return result


def _limits(task: Task, handler: Handler) -> Limits:
    """Return the limits of an attempt: the server holds it to the task's own, so a handler's can only be stricter."""
    limits = limits_of(task, handler)
    return limits._replace(
        timeout=min(limits.timeout, task.timeout_seconds),
        max_attempts=min(limits.max_attempts, task.max_attempts),
    )


def stop_all(attempts: Iterable[Attempt], why: Stop) -> None:
    """Stop attempts."""
    for attempt in attempts:
        attempt.stop(why)


def _name(attempt: Attempt) -> str:
    task = attempt.job.task
    return f"task {task.id} ({task.kind}) attempt {task.attempt}"


def _log_failure(attempt: Attempt, verdict: Verdict) -> None:
    if verdict.ending not in (Ending.RETRY, Ending.FAILED):
        return
    ended = attempt.ended
    error = ended.error if isinstance(ended, Raised) and attempt.stopped is None else None
    logger.warning(
        "%s failed: %s: %s",
        _name(attempt),
        verdict.error_type,
        verdict.error_message,
        # A handler that asks for a retry knows why; the traceback of any other error is what its author needs.
        exc_info=None if error is None or isinstance(error, Retry) else error,
    )
