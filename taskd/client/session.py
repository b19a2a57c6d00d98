"""What a worker and one server owe each other, through all streams between them; nothing here sends or receives.

An attempt is *running* from the message that brings it until its handler has really ended, then its result is *owed*
until the server has settled it. A stream may break at any moment: the next one begins with all that is running or owed,
and what is owed is sent again. A result that came twice is refused the second time, which does no harm.

What goes out waits here, so that while one message is being written the next gathers: results as they come, of progress
the newest of each attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar
from uuid import UUID, uuid4

from google.protobuf.message import Message

from taskd.clock import Clock
from taskd.domain.outcome import Report
from taskd.rpc.messages import duration, seconds_of
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.attempt import Attempt
from taskd.worker.plan import Stop

W = TypeVar("W")
M = TypeVar("M", bound=Message)

Key = tuple[UUID, int]
"""A task's id and the number of the attempt."""

MOST_ENTRIES = 1000
"""Results, or reports of progress, in one message."""

MOST_BYTES = 1_500_000
"""Bytes of a message, save that one result may be more: well below what a server takes, and a worker can still speak
soon after."""

STOPS = {
    pb.CANCEL_REASON_CANCELLED: Stop.CANCEL,
    pb.CANCEL_REASON_TIMEOUT: Stop.TIMEOUT,
    pb.CANCEL_REASON_RELEASED: Stop.RELEASE,
    pb.CANCEL_REASON_LOST: Stop.LOST,
}
"""Why a server may stop an attempt; another reason, of a newer server, is as a user's."""


def key_of(attempt: pb.Attempt) -> Key:
    """Return the key of an attempt."""
    return UUID(attempt.task_id), attempt.attempt


def attempt_message(key: Key, claim: int = 0) -> pb.Attempt:
    """Return an attempt as a message."""
    return pb.Attempt(task_id=str(key[0]), attempt=key[1], claim=claim)


class Session:
    """One session with one server; takes progress of its attempts as `worker.context.Reports`.

    Args:
        lease: seconds that the worker may be silent, as it asks for it.
        clock: monotonic seconds.
    """

    def __init__(self, lease: float, clock: Clock) -> None:
        self.id = ""
        """What the server calls it; empty before the first stream."""
        self.local_id = uuid4()
        self.lease = lease
        """As it holds: what the server said last."""
        self.slots = 0
        """As many as the server was told of."""
        self.open = False
        """Whether there is a stream that the server has welcomed."""
        self.drained = False
        """The server stops: it gives no more tasks."""
        self.leaving = False
        """The worker stops: it wants no more tasks."""
        self.closing = False
        """The worker ends the stream, whatever is still open."""
        self.heard = clock()
        """When the server was heard last, or the session made."""
        self.running: dict[Key, Attempt] = {}
        self.owed: dict[Key, pb.Result] = {}
        self.woken = asyncio.Event()
        """Set when there may be something to send."""
        self._asked = lease
        self._clock = clock
        self._unsent: dict[Key, pb.Result] = {}
        self._progress: dict[Key, Report] = {}
        self._written = asyncio.Event()
        self._being_written: asyncio.Event | None = None
        self._again: set[Key] = set()
        self._pong = False
        self._left = False
        self._results_last = False

    @property
    def idle(self) -> bool:
        """Whether neither side owes the other anything."""
        return not self.running and not self.owed

    @property
    def finished(self) -> bool:
        """Whether the stream is to be closed: now, or because all is done and no more is to come."""
        return self.closing or (self.idle and (self.leaving or self.drained))

    # To the server.

    def hello(self, kinds: Sequence[str], slots: int, name: str) -> pb.WorkRequest:
        """Return the first message of a stream; what is owed comes next, again."""
        self.slots = slots
        self._unsent = dict(self.owed)
        self._again = set(self.owed)
        self._pong = self._left = self.open = False
        running = [attempt_message(attempt.job.key, attempt.job.claim) for attempt in self.running.values()]
        running += [result.attempt for result in self.owed.values()]
        hello = pb.Hello(
            kinds=kinds, slots=slots, lease=duration(self._asked), name=name, session=self.id,
            running=running if self.id else (),
        )  # fmt: skip
        return pb.WorkRequest(hello=hello)

    def next(self) -> pb.WorkRequest | None:
        """Return what is to be sent now, or None; call `wrote` once it is."""
        if (self.leaving or self.drained) and not self._left:
            self._left = True
            return pb.WorkRequest(leave=pb.Leave())
        if self._unsent and not (self._results_last and self._progress):
            self._pong, self._results_last = False, True
            return pb.WorkRequest(results=pb.Results(results=_take(self._unsent, lambda result: result)))
        self._results_last = False
        if self._progress:
            self._pong = False
            self._being_written, self._written = self._written, asyncio.Event()
            return pb.WorkRequest(progress=pb.Progress(reports=_take(self._progress, self._report)))
        if self._pong:
            self._pong = False
            return pb.WorkRequest(pong=pb.Pong())
        return None

    def wrote(self) -> None:
        """Say that what `next` returned was written, or never will be."""
        if self._being_written is not None:
            self._being_written.set()
            self._being_written = None

    def broke(self) -> None:
        """Say that the stream has ended."""
        self.open = False
        self.wrote()
        self._written.set()
        self._written = asyncio.Event()

    def leave(self) -> None:
        """Want no more tasks, and close when all is done."""
        self.leaving = True
        self.woken.set()

    def close(self) -> None:
        """Close the stream now; the server gives back what is still open."""
        self.closing = True
        self.woken.set()

    # From the server.

    def welcome(self, message: pb.Welcome) -> list[Attempt]:
        """Take note of the server's answer; return the attempts that are nobody's business any more."""
        gone = [] if message.resumed or not self.id else self.lose()
        self.id = message.session
        self.lease = seconds_of(message.lease) or self.lease
        self.open = True
        self.hear()
        self.woken.set()
        return gone

    def hear(self) -> None:
        """Take note of a sign of the server's life."""
        self.heard = self._clock()

    def ping(self) -> None:
        """Give a sign of life, unless something else goes out anyway."""
        self._pong = True
        self.woken.set()

    def settle(self, message: pb.Settled) -> list[Key]:
        """Take note of what became of results; return those that were refused, save those that were sent twice."""
        refused = []
        for settled in message.results:
            key = key_of(settled.attempt)
            # One that waits to be sent belongs to a later turn of the same attempt, which was given back before.
            owed = self.owed.get(key)
            if key in self._unsent or owed is None or settled.attempt.claim not in (0, owed.attempt.claim):
                continue
            del self.owed[key]
            if not settled.accepted and key not in self._again:
                refused.append(key)
            self._again.discard(key)
        self.woken.set()
        return refused

    # From the handlers.

    def begin(self, attempt: Attempt) -> None:
        """An attempt runs."""
        self.running[attempt.job.key] = attempt

    def end(self, key: Key, result: pb.Result) -> None:
        """An attempt has ended; nothing happens if it is no longer of this session."""
        if self.running.pop(key, None) is not None:
            self.owe(key, result)

    def owe(self, key: Key, result: pb.Result) -> None:
        """Have a result sent until it is settled."""
        self._progress.pop(key, None)
        self.owed[key] = self._unsent[key] = result
        self.woken.set()

    def lose(self) -> list[Attempt]:
        """Forget all that is running or owed; return the attempts that run on."""
        self.owed, self._unsent = {}, {}
        return self.lose_running()

    def lose_running(self) -> list[Attempt]:
        """Forget what is running, and return it: results would come too late. What is owed may still be in time."""
        gone, self.running, self._progress = list(self.running.values()), {}, {}
        self.woken.set()
        return gone

    async def send(self, report: Report) -> None:
        """Send a report; returns when it is written, or at once while there is no stream. It is not acknowledged."""
        written = self._written
        self.put(report)
        if self.open and (report.task_id, report.attempt) in self._progress:
            await written.wait()
        else:
            await asyncio.sleep(0)

    def put(self, report: Report) -> None:
        """Send a report soon, unless a later one of the same attempt comes first."""
        key = report.task_id, report.attempt
        if key in self.running:
            self._progress[key] = report
            self.woken.set()

    def _report(self, report: Report) -> pb.AttemptProgress:
        # Reports of what no longer runs are dropped with it.
        key = report.task_id, report.attempt
        attempt = attempt_message(key, self.running[key].job.claim)
        return pb.AttemptProgress(attempt=attempt, fraction=report.progress, note=report.note)


def _take(waiting: dict[Key, W], message_of: Callable[[W], M]) -> list[M]:
    """Take as much of what waits as one message may hold, at least one entry."""
    taken: list[M] = []
    size = 0
    for key in list(islice(waiting, MOST_ENTRIES)):
        message = message_of(waiting[key])
        size += message.ByteSize()
        if taken and size > MOST_BYTES:
            break
        taken.append(message)
        del waiting[key]
    return taken
