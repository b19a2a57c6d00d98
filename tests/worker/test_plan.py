"""What becomes of an attempt is decided by why it stopped and what its handler did."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.outcome import Ending
from taskd.domain.retry import Retry, RetryPolicy
from taskd.worker.plan import (
    POLL,
    Limits,
    Stop,
    claimable,
    judge,
    limits_of,
    pause_after_promote,
)
from taskd.worker.registry import Handler
from taskd.worker.result import MAX_RESULT, Raised, ResultError, Returned, encode_result, error_message, error_type
from tests.worker.model import make_task

LIMITS = Limits(timeout=10, max_attempts=3, retry=RetryPolicy())
DONE, WRONG = Returned('{"ok":true}'), Raised(ValueError("no"))
STOPPED = Raised(asyncio.CancelledError())


@pytest.mark.parametrize(
    ("attempt", "stop", "ended", "ending", "type_"),
    [
        (1, None, DONE, Ending.DONE, None),
        (1, None, WRONG, Ending.RETRY, "ValueError"),
        (3, None, WRONG, Ending.FAILED, "ValueError"),
        (1, None, STOPPED, Ending.RETRY, "CancelledError"),
        (1, None, Raised(SystemExit(1)), Ending.RETRY, "SystemExit"),
        (1, Stop.TIMEOUT, STOPPED, Ending.RETRY, "TimeoutError"),
        (3, Stop.TIMEOUT, None, Ending.FAILED, "TimeoutError"),
        (1, Stop.TIMEOUT, DONE, Ending.RETRY, "TimeoutError"),
        (1, Stop.CANCEL, STOPPED, Ending.CANCELLED, None),
        (1, Stop.CANCEL, DONE, Ending.CANCELLED, None),
        (1, Stop.CANCEL, None, Ending.CANCELLED, None),
        (3, Stop.RELEASE, STOPPED, Ending.RELEASED, None),
        (3, Stop.RELEASE, WRONG, Ending.RELEASED, None),
        (3, Stop.RELEASE, None, Ending.RELEASED, None),
        (3, Stop.RELEASE, DONE, Ending.RELEASED, None),
    ],
)
def test_judgement(attempt: int, stop: Stop | None, ended: Any, ending: Ending, type_: str | None) -> None:
    verdict = judge(attempt, LIMITS, stop, ended)
    assert verdict is not None
    assert (verdict.ending, verdict.error_type) == (ending, type_)


@pytest.mark.parametrize("ended", [DONE, WRONG, STOPPED, None])
def test_a_lost_attempt_is_not_judged(ended: Any) -> None:
    assert judge(1, LIMITS, Stop.LOST, ended) is None


def test_a_retry_of_a_class_that_did_not_call_its_constructor_is_one() -> None:
    class Busy(Retry):
        def __init__(self, host: str) -> None:
            self.host = host

    verdict = judge(1, LIMITS, None, Raised(Busy("a")))
    assert verdict is not None
    assert verdict.ending is Ending.RETRY
    assert 0 <= verdict.delay <= LIMITS.retry.ceiling(1)


@given(st.integers(1, 100), st.integers(1, 100), st.one_of(st.none(), st.floats(0, 1000)))
def test_a_failure_waits_as_asked_or_within_the_policy(attempt: int, most: int, after: float | None) -> None:
    limits = Limits(10, most, RetryPolicy())
    verdict = judge(attempt, limits, None, Raised(Retry("busy", after=after)))
    assert verdict is not None
    assert verdict.error_message == "busy"
    if attempt >= most:
        assert (verdict.ending, verdict.delay) == (Ending.FAILED, 0)
    else:
        assert verdict.ending is Ending.RETRY
        assert verdict.delay == after if after is not None else 0 <= verdict.delay <= limits.retry.ceiling(attempt)


def test_the_handlers_limits_are_the_kinds() -> None:
    task = make_task(timeout_seconds=7.0, max_attempts=9)

    def handle(task: Any, ctx: Any) -> None: ...

    own = limits_of(task, Handler("work", handle))
    assert (own.timeout, own.max_attempts) == (7, 9)
    kinds = limits_of(task, Handler("work", handle, 600, 2))
    assert (kinds.timeout, kinds.max_attempts) == (600, 2)


def test_only_a_trusted_lease_claims_and_not_while_draining() -> None:
    assert claimable(3, trusted=True, draining=False, kinds=1) == 3
    assert claimable(3, trusted=False, draining=False, kinds=1) == 0
    assert claimable(3, trusted=True, draining=True, kinds=1) == 0
    assert claimable(3, trusted=True, draining=False, kinds=0) == 0


def test_pauses() -> None:
    assert pause_after_promote(None) == pause_after_promote(1e9) == POLL
    assert pause_after_promote(0.25) == 0.25


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ({"a": [1, 2.5, "ж"]}, '{"a":[1,2.5,"ж"]}'), ((1, 2), "[1,2]"), ({1: 2}, '{"1":2}')],
)
def test_a_result_is_compact_json(value: object, text: str) -> None:
    assert encode_result(value) == text


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {"a": {1, 2}},
        {(1, 2): 3},
        float("nan"),
        float("inf"),
        "\ud800",
        "nul \0",
        {"\0": 1},
        2**64,
        10**5000,
        _deep(65),
        _deep(100_000),
        _LOOP,
        "x" * (MAX_RESULT + 1),
        "ж" * (MAX_RESULT // 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_cannot_be_stored_is_refused_in_words(value: object) -> None:
    with pytest.raises(ResultError, match="the result"):
        encode_result(value)


def test_a_forgotten_async_is_said_so() -> None:
    async def value() -> None: ...

    with pytest.raises(ResultError, match="async def"):
        encode_result(value())


def test_an_errors_words_can_always_be_stored() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_type(Mute()) == "Mute"
    assert "can't be had" in error_message(Mute())
    message = error_message(ValueError("nul \0, half \ud800, " + "long" * 10_000))
    assert "\0" not in message
    assert len(message.encode()) <= 40_000
    assert len(message) <= 10_000
