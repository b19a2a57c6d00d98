import pytest

from taskd.runtime.backoff import Backoff


def test_pauses_grow_to_the_cap() -> None:
    backoff = Backoff(0.1, 1.0, random=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_pause_lies_in_the_upper_half_of_its_step() -> None:
    assert Backoff(4, 9, random=lambda: 0.0).next() == 2
    assert Backoff(4, 9, random=lambda: 0.5).next() == 3
    assert all(2 <= Backoff(4, 9).next() <= 4 for _ in range(100))


def test_another_factor() -> None:
    backoff = Backoff(1, 100, 3, random=lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [1, 3, 9]


def test_reset_begins_again() -> None:
    backoff = Backoff(1, 8, random=lambda: 1.0)
    assert [backoff.next(), backoff.next()] == [1, 2]
    backoff.reset()
    assert backoff.next() == 1


@pytest.mark.parametrize(("first", "cap", "factor"), [(-1, 1, 2), (2, 1, 2), (1, 2, 0.5)])
def test_nonsense_is_refused(first: float, cap: float, factor: float) -> None:
    with pytest.raises(ValueError, match="wants"):
        Backoff(first, cap, factor)
