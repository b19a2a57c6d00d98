"""`WorkerService`: a worker's stream translated to its session, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from taskd.domain.fields import Bad, Id, Text
from taskd.domain.forms import KIND
from taskd.domain.model import User
from taskd.errors import Fault, Invalid, StaleVersion, Unavailable
from taskd.rpc.calls import Answer, Send
from taskd.rpc.messages import duration, seconds_of, task_message
from taskd.runtime.supervisor import Supervisor
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.context import MAX_NOTE
from taskd.worker.crews import Crews
from taskd.worker.plan import Stop
from taskd.worker.result import (
    MAX_MESSAGE,
    MAX_TYPE,
    Ended,
    Failed,
    GivenBack,
    ResultError,
    Returned,
    check_result,
    clean_text,
)
from taskd.worker.session import Outgoing, Session, Turn

HELLO_WITHIN = 10.0
"""Seconds from the stream's beginning to its first message."""

LAST_WITHIN = 10.0
"""Seconds that a worker which has closed its side may take to read what is left."""

LEASE, SHORTEST_LEASE, LONGEST_LEASE = 10.0, 2.0, 300.0
MOST_KINDS, MOST_SLOTS, MOST_ENTRIES = 100, 1000, 1000
LONGEST_RETRY = 366 * 86_400.0
ANOTHER = "this worker has opened another stream"
TASKS_BYTES = 1024 * 1024
"""Bytes of one message of tasks, but for one task."""

_NAME = Text(0, 200)
_ID = Id()
_REASONS = {
    Stop.RELEASE: pb.CANCEL_REASON_RELEASED,
    Stop.TIMEOUT: pb.CANCEL_REASON_TIMEOUT,
    Stop.CANCEL: pb.CANCEL_REASON_CANCELLED,
    Stop.LOST: pb.CANCEL_REASON_LOST,
}


class StreamOver(StaleVersion):
    """The stream is no longer the worker's: it was silent for too long, or has opened another."""

    code = "stream-over"


class WorkCalls:
    """The call of `WorkerService`.

    Args:
        crews: the sessions.
        supervisor: owns what runs beside a stream.
    """

    def __init__(self, crews: Crews, supervisor: Supervisor) -> None:
        self._crews = crews
        self._supervisor = supervisor

    async def work(self, user: User, requests: AsyncIterator[pb.WorkRequest], send: Send) -> None:
        """Serve one worker until its stream ends.

        Raises:
            Invalid: it says what can't be understood; names the field.
            StreamOver: it was not heard for the time of its lease, or has opened another stream.
            Unavailable: the server stops, or has too many workers.
        """
        hello = await _hello(requests)
        kinds, lease, running = _checked(hello)
        session: Session | None = None
        if hello.session:
            session = self._crews.resume(hello.session, user, kinds, hello.slots, lease)
        resumed = session is not None
        if session is None:
            session = self._crews.open(user, kinds, hello.slots, lease, hello.name or "a worker")
        stream = self._crews.attach(session, running if resumed else ())
        closed = False
        try:
            await send(_welcome(session, resumed))
            if await self._serve(session, stream, requests, send):
                closed = await _is_closed(send)
        finally:
            self._crews.detach(session, stream, closed=closed)

    async def _serve(self, session: Session, stream: int, requests: AsyncIterator[pb.WorkRequest], send: Send) -> bool:
        """Read, write and watch over the stream until one of that ends; return whether no more comes to be read."""
        duties = [
            self._supervisor.spawn(_as_value(duty), f"worker stream, {name}")
            for name, duty in (
                ("read", _read(session, stream, requests)),
                ("write", _write(session, stream, send)),
                ("watch", _watch(session, stream)),
                ("end", self._ended()),
            )
        ]
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.wait(duties)
        for duty in done:
            if not duty.cancelled() and (error := duty.result()) is not None:
                raise error
        return duties[0] in done and not duties[0].cancelled()

    async def _ended(self) -> None:
        await self._crews.ended.wait()
        raise Unavailable("the server stops: work for another")


async def _is_closed(send: Send) -> bool:
    """Return whether the worker has closed its side; raise what gRPC does if the stream was broken off.

    Both end what is read alike. But one that was reset takes no more (RFC 9113, 5.1): not even what says nothing.
    """
    try:
        async with asyncio.timeout(LAST_WITHIN):
            await send(pb.WorkResponse(settled=pb.Settled()))
    except TimeoutError:
        return False
    return True


async def _as_value(duty: Any) -> Exception | None:
    """Return the error that a duty ends with, gRPC's own too: it is the stream's, and the process goes on."""
    try:
        await duty
    except Exception as error:
        return error
    return None


async def _watch(session: Session, stream: int) -> None:
    """Ask for signs of life, and end the stream that has given none for the time of the lease, no later."""
    while True:
        await asyncio.sleep(session.look_in)
        if not session.is_current(stream):
            raise StreamOver(ANOTHER)
        if session.is_silent:
            raise StreamOver(f"nothing was heard for {session.lease:g} seconds")
        session.ping()


async def _hello(requests: AsyncIterator[pb.WorkRequest]) -> pb.Hello:
    try:
        async with asyncio.timeout(HELLO_WITHIN):
            first = await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        raise Invalid([Fault("hello", f"must come first, within {HELLO_WITHIN:g} seconds")]) from None
    if first.WhichOneof("message") != "hello":
        raise Invalid([Fault("hello", "must come first")])
    return first.hello


def _checked(hello: pb.Hello) -> tuple[tuple[str, ...], float, list[Turn]]:
    """Return the kinds, the lease and what runs."""
    faults: list[Fault] = []
    if not 1 <= len(hello.kinds) <= MOST_KINDS:
        faults.append(Fault("hello.kinds", f"must have 1 to {MOST_KINDS} items"))
    for number, kind in enumerate(hello.kinds):
        if isinstance(bad := KIND.check(kind), Bad):
            faults.append(Fault(f"hello.kinds[{number}]", bad.message))
    if not 1 <= hello.slots <= MOST_SLOTS:
        faults.append(Fault("hello.slots", f"must be between 1 and {MOST_SLOTS}"))
    lease = seconds_of(hello.lease) if hello.HasField("lease") else LEASE
    if not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
        faults.append(Fault("hello.lease", f"must be {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds"))
    if isinstance(bad := _NAME.check(hello.name), Bad):
        faults.append(Fault("hello.name", bad.message))
    if len(hello.running) > 2 * MOST_SLOTS:
        faults.append(Fault("hello.running", f"must have at most {2 * MOST_SLOTS} items"))
    running = [_turn(attempt, f"hello.running[{number}]", faults) for number, attempt in enumerate(hello.running)]
    if faults:
        raise Invalid(faults)
    return tuple(sorted(set(hello.kinds))), lease, running


def _turn(attempt: pb.Attempt, field: str, faults: list[Fault]) -> Turn:
    found = _ID.read(attempt.task_id)
    if isinstance(found, Bad):
        faults.append(Fault(f"{field}.task_id", found.message))
        return UUID(int=0), 0, 0
    return found, attempt.attempt, attempt.claim


async def _read(session: Session, stream: int, requests: AsyncIterator[pb.WorkRequest]) -> None:
    async for request in requests:
        if not session.is_current(stream):
            raise StreamOver(ANOTHER)
        session.heard()
        what = request.WhichOneof("message")
        if what == "results":
            for turn, ended in _results(request.results):
                session.result(turn, ended)
            await session.room()
        elif what == "progress":
            for turn, fraction, note in _reports(request.progress):
                session.progress(turn, fraction, note)
        elif what == "leave":
            session.leave()
        elif what == "hello":
            raise Invalid([Fault("hello", "comes once")])


def _results(results: pb.Results) -> list[tuple[Turn, Ended]]:
    faults: list[Fault] = []
    if len(results.results) > MOST_ENTRIES:
        raise Invalid([Fault("results", f"must have at most {MOST_ENTRIES} items")])
    found = []
    for number, result in enumerate(results.results):
        field = f"results[{number}]"
        turn = _turn(result.attempt, f"{field}.attempt", faults)
        outcome = result.WhichOneof("outcome")
        if outcome is None:
            faults.append(Fault(f"{field}.outcome", "must be given"))
        elif outcome == "result":
            found.append((turn, _returned(result.result)))
        elif outcome == "failure":
            found.append((turn, _failed(result.failure)))
        else:
            found.append((turn, GivenBack()))
    if faults:
        raise Invalid(faults)
    return found


def _returned(text: str) -> Ended:
    try:
        # Line breaks outside of strings only (RFC 8259, section 7), where they mean nothing; an event is one line.
        return Returned(check_result(text).replace("\n", " ").replace("\r", " "))
    except ResultError as error:
        # The worker's fault, not the task's: as when a handler here returns what can't be stored.
        return Failed("ResultError", str(error))


def _failed(failure: pb.AttemptFailure) -> Failed:
    after = None
    if failure.HasField("retry_after"):
        after = min(max(0.0, seconds_of(failure.retry_after)), LONGEST_RETRY)
    name = clean_text(failure.type, MAX_TYPE) or "Error"
    return Failed(name, clean_text(failure.message, MAX_MESSAGE), after, failure.final)


def _reports(progress: pb.Progress) -> Iterator[tuple[Turn, float, str | None]]:
    if len(progress.reports) > MOST_ENTRIES:
        raise Invalid([Fault("progress", f"must have at most {MOST_ENTRIES} items")])
    faults: list[Fault] = []
    found = []
    for number, report in enumerate(progress.reports):
        field = f"progress[{number}]"
        turn = _turn(report.attempt, f"{field}.attempt", faults)
        if not 0 <= report.fraction <= 1:
            faults.append(Fault(f"{field}.fraction", "must be a number from 0 to 1"))
        found.append((turn, report.fraction, clean_text(report.note, MAX_NOTE) if report.HasField("note") else None))
    if faults:
        raise Invalid(faults)
    return iter(found)


async def _write(session: Session, stream: int, send: Send) -> None:
    while True:
        await session.woken.wait()
        if not session.is_current(stream):
            # What is to be said is for the other one.
            raise StreamOver(ANOTHER)
        for message in _messages(session.fetch()):
            await send(message)


def _messages(outgoing: Outgoing) -> Iterator[Answer]:
    """Yield what is to be said, tasks in messages of at most about `TASKS_BYTES`."""
    batch, size = pb.Tasks(), 0
    for task, claim in zip(outgoing.tasks, outgoing.claims, strict=True):
        message = task_message(task)
        if size and size + message.ByteSize() > TASKS_BYTES:
            yield pb.WorkResponse(tasks=batch)
            batch, size = pb.Tasks(), 0
        batch.tasks.append(message)
        batch.claims.append(claim)
        size += message.ByteSize()
    if size:
        yield pb.WorkResponse(tasks=batch)
    for turn, why in outgoing.cancels.items():
        yield pb.WorkResponse(cancel=pb.Cancel(attempt=_attempt(turn), reason=_REASONS[why]))
    if outgoing.acks:
        settled = [pb.SettledResult(attempt=_attempt(turn), accepted=accepted) for turn, accepted in outgoing.acks]
        yield pb.WorkResponse(settled=pb.Settled(results=settled))
    if outgoing.drain is not None:
        yield pb.WorkResponse(drain=pb.Drain(within=duration(outgoing.drain)))
    if outgoing.ping:
        yield pb.WorkResponse(ping=pb.Ping())


def _attempt(turn: Turn) -> pb.Attempt:
    return pb.Attempt(task_id=str(turn[0]), attempt=turn[1], claim=turn[2])


def _welcome(session: Session, resumed: bool) -> pb.WorkResponse:
    welcome = pb.Welcome(session=session.id, lease=duration(session.lease), resumed=resumed)
    return pb.WorkResponse(welcome=welcome)
