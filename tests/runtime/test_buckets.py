"""Token buckets, against a plain one that is filled step by step."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from taskd.runtime.buckets import Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


RATES = st.sampled_from([1, 2, 4, 8])
STEPS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), max_size=60)


@given(RATES, st.integers(1, 9), STEPS)
def test_it_gives_what_a_bucket_would_that_is_filled_all_the_time(
    rate: int, burst: int, steps: list[tuple[int, str]]
) -> None:
    clock = Clock()
    buckets: Buckets[str] = Buckets(rate, burst, clock=clock)
    levels: dict[str, Fraction] = {}
    for eighths, key in steps:
        clock.now += eighths / 8
        for name in levels:
            levels[name] = min(Fraction(burst), levels[name] + Fraction(eighths, 8) * rate)
        level = levels.get(key, Fraction(burst))
        seen = buckets.look(key)
        taken = buckets.take(key)
        if level >= 1:
            level -= 1
            assert (taken.retry_after, seen.retry_after) == (0, 0)
            assert seen.remaining == taken.remaining + 1
            assert taken.remaining == level // 1
            assert taken.reset == float((burst - level) / rate)
        else:
            assert taken == seen
            assert taken.retry_after == float((1 - level) / rate)
            assert taken.remaining == 0
        assert taken.limit == burst
        levels[key] = level


def test_after_the_wait_there_is_one() -> None:
    clock = Clock()
    buckets: Buckets[str] = Buckets(3.7, 2, clock=clock)
    for _ in range(1000):
        taken = buckets.take("a")
        if taken.retry_after:
            clock.now += taken.retry_after
            assert not buckets.take("a").retry_after


def test_the_burst_is_of_one_second_unless_given() -> None:
    assert [Buckets[str](rate).take("a").limit for rate in (0.1, 1, 2.5, 100)] == [1, 1, 3, 100]


def test_full_ones_are_forgotten_and_so_are_those_beyond_the_most() -> None:
    clock = Clock()
    buckets: Buckets[int] = Buckets(1, most=100, clock=clock)
    for key in range(1000):
        buckets.take(key)
    assert len(buckets) == 100
    clock.now += 1.5
    buckets.take(1)
    assert len(buckets) == 1
