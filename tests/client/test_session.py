"""A session against a model of its server, over a link that loses what it likes whenever it breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count, pairwise
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.client.session import MOST_BYTES, Key, Session, attempt_message, key_of
from taskd.domain.outcome import Report
from taskd.v1 import taskd_pb2 as pb
from taskd.worker.attempt import Attempt
from taskd.worker.context import Context
from taskd.worker.job import Job
from taskd.worker.plan import limits_of
from taskd.worker.registry import Handler
from tests.client.peer import task_of_kind

HANDLER = Handler("work", lambda task, ctx: None)


def begun(session: Session) -> Key:
    """Begin an attempt."""
    task = task_of_kind()
    job = Job(task, session.local_id)
    session.begin(Attempt(job, HANDLER, limits_of(task, HANDLER), Context(job, session)))
    return job.key


def result_of(key: Key, text: str = "1") -> pb.Result:
    return pb.Result(attempt=attempt_message(key), result=text)


def opened(session: Session, *, name: str = "s", resumed: bool = False) -> pb.Hello:
    """Begin a stream."""
    hello = session.hello(["work"], 10, "").hello
    session.welcome(pb.Welcome(session=name, resumed=resumed))
    return hello


def all_of(session: Session) -> list[pb.WorkRequest]:
    """Return all that is to be sent now."""
    found = []
    while (message := session.next()) is not None:
        session.wrote()
        found.append(message)
    return found


class Link:
    """A server that keeps what it gave until a result settles it, and both directions of what is on its way."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.held: set[Key] = set()
        self.done: list[Key] = []
        self.out: deque[pb.WorkRequest] = deque()
        self.back: deque[tuple[str, Key, bool]] = deque()
        self.ended: list[Key] = []
        self.numbers = count(1)
        opened(session)

    def give(self) -> None:
        """Hand out a task: it is held from now on, even if it never arrives."""
        key = UUID(int=next(self.numbers)), 1
        self.held.add(key)
        self.back.append(("task", key, True))

    def write(self) -> None:
        if (message := self.session.next()) is not None:
            self.out.append(message)
            self.session.wrote()

    def hear(self) -> None:
        """The server takes a message and acknowledges each result in it."""
        if not self.out:
            return
        for result in self.out.popleft().results.results:
            key = key_of(result.attempt)
            accepted = key in self.held
            if accepted:
                self.held.discard(key)
                self.done.append(key)
            self.back.append(("settled", key, accepted))

    def arrive(self) -> None:
        """The worker takes a message."""
        if not self.back:
            return
        what, key, accepted = self.back.popleft()
        if what == "task":
            task = task_of_kind(id=key[0])
            job = Job(task, self.session.local_id)
            self.session.begin(Attempt(job, HANDLER, limits_of(task, HANDLER), Context(job, self.session)))
        else:
            settled = pb.SettledResult(attempt=attempt_message(key), accepted=accepted)
            assert self.session.settle(pb.Settled(results=[settled])) == []

    def end(self) -> None:
        if self.session.running:
            key = next(iter(self.session.running))
            self.ended.append(key)
            self.session.end(key, result_of(key))

    def break_off(self) -> None:
        """All that is on its way is lost; what did not arrive is taken back."""
        self.session.broke()
        self.out.clear()
        self.back.clear()
        hello = opened(self.session, resumed=True)
        self.held &= {key_of(attempt) for attempt in hello.running}


STEPS = ("give", "write", "hear", "arrive", "end", "break_off")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=80))
def test_each_attempt_that_arrived_is_settled_exactly_once(steps: list[str]) -> None:
    async def run() -> None:
        link = Link(Session(10, lambda: 0))
        for step in steps:
            getattr(link, step)()
        for _ in range(len(steps) * 4):
            for step in STEPS[1:-1]:
                getattr(link, step)()
        assert link.held == set()
        assert link.session.idle
        assert sorted(link.done) == sorted(link.ended)

    asyncio.run(run())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=12))
def test_messages_are_bounded_and_hold_everything_in_order(sizes: list[int]) -> None:
    async def run() -> None:
        session = Session(10, lambda: 0)
        opened(session)
        keys = [begun(session) for _ in sizes]
        for key, size in zip(keys, sizes, strict=True):
            session.end(key, result_of(key, "1" * size))
        messages = [message.results.results for message in all_of(session)]
        assert [key_of(result.attempt) for results in messages for result in results] == keys
        assert all(len(results) == 1 or sum(r.ByteSize() for r in results) <= MOST_BYTES for results in messages)
        # No two could have been one.
        firsts = [sum(r.ByteSize() for r in a) + b[0].ByteSize() for a, b in pairwise(messages)]
        assert all(size > MOST_BYTES for size in firsts)

    asyncio.run(run())


async def test_a_message_has_at_most_a_thousand_results() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    for key in [begun(session) for _ in range(1500)]:
        session.end(key, result_of(key))
    assert [len(message.results.results) for message in all_of(session)] == [1000, 500]


async def test_of_progress_only_the_newest_of_each_attempt_is_sent() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    one, two = begun(session), begun(session)
    for key, fraction in ((one, 0.1), (two, 0.2), (one, 0.3)):
        session.put(Report(*key, session.local_id, fraction, None))
    (message,) = all_of(session)
    sent = {key_of(report.attempt): report.fraction for report in message.progress.reports}
    assert sent == {one: 0.3, two: 0.2}


async def test_progress_of_an_attempt_that_has_ended_is_not_sent() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    key = begun(session)
    session.put(Report(*key, session.local_id, 0.5, None))
    session.end(key, result_of(key))
    session.put(Report(*key, session.local_id, 0.6, None))
    assert [message.WhichOneof("message") for message in all_of(session)] == ["results"]


async def test_neither_results_nor_progress_keep_the_other_waiting() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    kinds = []
    reporter = begun(session)
    for _ in range(4):
        key = begun(session)
        session.end(key, result_of(key))
        session.put(Report(*reporter, session.local_id, 0.5, None))
        message = session.next()
        assert message is not None
        kinds.append(message.WhichOneof("message"))
    assert kinds == ["results", "progress", "results", "progress"]


async def test_a_report_returns_when_it_is_written() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    key = begun(session)
    sending = asyncio.create_task(session.send(Report(*key, session.local_id, 0.5, None)))
    await asyncio.sleep(0)
    message = session.next()
    await asyncio.sleep(0)
    assert message is not None
    assert not sending.done()
    session.wrote()
    await sending
    session.broke()
    # Without a stream it waits for nothing, and goes out with the next.
    await session.send(Report(*key, session.local_id, 0.6, None))
    opened(session, resumed=True)
    assert all_of(session)[0].progress.reports[0].fraction == 0.6


async def test_a_report_does_not_wait_for_a_stream_that_broke() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    key = begun(session)
    sending = asyncio.create_task(session.send(Report(*key, session.local_id, 0.5, None)))
    await asyncio.sleep(0)
    session.broke()
    await sending


async def test_a_sign_of_life_is_sent_only_where_nothing_else_is() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    session.ping()
    assert [message.WhichOneof("message") for message in all_of(session)] == ["pong"]
    session.ping()
    key = begun(session)
    session.end(key, result_of(key))
    assert [message.WhichOneof("message") for message in all_of(session)] == ["results"]


async def test_only_a_refusal_that_is_no_repetition_is_told() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    first, second = begun(session), begun(session)
    session.end(first, result_of(first))
    all_of(session)
    session.broke()
    opened(session, resumed=True)
    session.end(second, result_of(second))
    all_of(session)
    refused = [pb.SettledResult(attempt=attempt_message(key)) for key in (first, second)]
    assert session.settle(pb.Settled(results=refused)) == [second]
    assert session.idle


async def test_the_acknowledgement_of_an_earlier_turn_does_not_settle_a_later_one() -> None:
    session = Session(10, lambda: 0)
    opened(session)
    key = begun(session)
    session.end(key, result_of(key))
    all_of(session)
    # Given back and handed out again under the same number, it ends before the first word of it is acknowledged.
    session.owe(key, result_of(key, "2"))
    session.settle(pb.Settled(results=[pb.SettledResult(attempt=attempt_message(key), accepted=True)]))
    assert all_of(session)[0].results.results == [result_of(key, "2")]
    assert not session.idle
