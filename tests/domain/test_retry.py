"""The retry policy keeps its bounds whatever it is given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.outcome import Ending, ending_of_failure, wait_before_retry
from taskd.domain.retry import Retry, RetryPolicy

firsts = st.floats(0.001, 100)
policies = st.builds(
    lambda first, factor, more: RetryPolicy(first, factor, first + more), firsts, st.floats(1, 10), st.floats(0, 1e6)
)
attempts = st.integers(1, 100_000)


def test_the_default_doubles_from_one_second_to_one_hour() -> None:
    policy = RetryPolicy()
    assert [policy.ceiling(n) for n in (1, 2, 3, 4, 12, 13, 100)] == [1, 2, 4, 8, 2048, 3600, 3600]


@given(policies, attempts)
def test_the_ceiling_grows_and_never_passes_the_cap(policy: RetryPolicy, attempt: int) -> None:
    assert policy.first <= policy.ceiling(attempt) <= policy.ceiling(attempt + 1) <= policy.cap


@given(policies, attempts, st.floats(0, 1))
def test_the_jitter_is_full(policy: RetryPolicy, attempt: int, share: float) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low + share * (high - low)

    assert policy.delay(attempt, uniform) == share * policy.ceiling(attempt)
    assert drawn == [(0.0, policy.ceiling(attempt))]


@given(policies, attempts)
def test_a_drawn_delay_is_within_its_bounds(policy: RetryPolicy, attempt: int) -> None:
    assert 0 <= policy.delay(attempt) <= policy.ceiling(attempt)


def test_an_attempt_beyond_all_numbers_waits_for_the_cap() -> None:
    assert RetryPolicy().ceiling(10**6) == 3600


@pytest.mark.parametrize(("first", "factor", "cap"), [(0, 2, 1), (-1, 2, 1), (1, 0.5, 2), (2, 2, 1), (math.nan, 2, 1)])
def test_an_impossible_policy_cannot_be_built(first: float, factor: float, cap: float) -> None:
    with pytest.raises(ValueError, match="retry policy"):
        RetryPolicy(first, factor, cap)


@pytest.mark.parametrize("after", [-0.001, 31_536_001, math.nan, math.inf])
def test_a_retry_after_an_impossible_time_cannot_be_built(after: float) -> None:
    with pytest.raises(ValueError, match="after"):
        Retry(after=after)


@given(policies, attempts, st.floats(0, 31_536_000))
def test_the_wait_that_a_handler_asks_for_wins(policy: RetryPolicy, attempt: int, asked: float) -> None:
    assert wait_before_retry(policy, attempt, Retry("later", after=asked).after) == asked


@given(st.integers(1, 100), st.integers(1, 100))
def test_only_attempts_that_are_left_are_tried(attempt: int, most: int) -> None:
    assert ending_of_failure(attempt, most) is (Ending.RETRY if attempt < most else Ending.FAILED)
