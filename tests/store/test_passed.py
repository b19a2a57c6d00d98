"""Where claims look: behind what was claimed, and nowhere else is anything missed."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from taskd.store.passed import FIRST, LAST, LONGEST, MOST, NO_ID, SHARE, Look, Passed, Range

WHOLE = Range("k", FIRST, NO_ID, LAST)


def task_id(number: int) -> UUID:
    return UUID(int=number)


def holds(look: Look, kind: str, rank: int, one: UUID) -> bool:
    """Return whether a claim looks at a task."""
    return any(
        kind == found.kind and (rank, one) > (found.rank, found.after) and rank <= found.last for found in look.ranges
    )


def claim(passed: Passed, *claimed: tuple[str, int, UUID], now: float = 0.0, took: float = 1.0) -> Look:
    look = passed.begin(["k"], now, follows=True)
    passed.claimed(look, claimed)
    passed.end(look, took, now)
    return look


def test_the_first_look_is_from_the_front_and_then_none_for_some_times_as_long() -> None:
    passed = Passed()
    assert claim(passed, ("k", 0, task_id(5))).ranges == [WHOLE]
    behind = [Range("k", FIRST, NO_ID, -1), Range("k", 0, task_id(5), LAST)]
    assert claim(passed, now=SHARE - 0.1, took=9.0).ranges == behind
    assert claim(passed, now=SHARE).ranges == [WHOLE]


def test_who_does_not_follow_the_log_looks_from_the_front() -> None:
    passed = Passed()
    claim(passed, ("k", 0, task_id(5)))
    assert passed.begin(["k", "l"], 0.1, follows=False).ranges == [WHOLE, WHOLE._replace(kind="l")]


def test_each_rank_has_a_place_of_its_own() -> None:
    passed = Passed()
    claim(passed, ("k", -3, task_id(7)), ("k", 2, task_id(4)))
    look = claim(passed)
    every = {(rank, number) for rank in range(-5, 5) for number in range(1, 10)}
    passed_by = {(-3, number) for number in range(1, 8)} | {(2, number) for number in range(1, 5)}
    assert {one for one in every if holds(look, "k", one[0], task_id(one[1]))} == every - passed_by


def test_what_becomes_ready_moves_the_place_back() -> None:
    passed = Passed()
    claim(passed, ("k", 0, task_id(9)))
    passed.readied("k", 0, task_id(6))
    passed.readied("other", 0, task_id(1))
    look = claim(passed)
    assert [number for number in range(1, 12) if holds(look, "k", 0, task_id(number))] == [6, 7, 8, 9, 10, 11]


def test_what_becomes_ready_during_a_claim_is_not_passed_by() -> None:
    passed = Passed()
    look = passed.begin(["k"], 0.0, follows=True)
    passed.readied("k", 0, task_id(3))
    passed.claimed(look, [("k", 0, task_id(9))])
    passed.end(look, 1.0, 0.0)
    assert holds(claim(passed), "k", 0, task_id(3))


def test_a_claim_that_takes_long_remembers_no_more_than_the_first_of_what_becomes_ready() -> None:
    passed = Passed()
    look = passed.begin(["k"], 0.0, follows=True)
    for number in (7, 3, 5):
        passed.readied("k", 0, task_id(number))
        passed.readied(f"other{number}", 0, task_id(number))
    assert look.readied == {("k", 0): task_id(3)}


def test_what_became_ready_before_a_second_look_at_the_same_ranges_is_not_passed_by() -> None:
    passed = Passed()
    claim(passed, ("k", 0, task_id(5)))
    look = passed.begin(["k"], 0.0, follows=True)
    passed.claimed(look, [("k", 0, task_id(7))])
    passed.readied("k", 0, task_id(3))
    passed.claimed(look, [("k", 0, task_id(9))])
    passed.end(look, 1.0, 0.0)
    assert holds(claim(passed), "k", 0, task_id(3))


def test_where_a_ready_task_was_changed_all_of_its_priority_is_looked_at() -> None:
    passed = Passed()
    claim(passed, ("k", 0, task_id(9)), ("k", 5, task_id(9)))
    passed.changed("k", 0)
    look = claim(passed)
    assert holds(look, "k", 0, task_id(1))
    assert not holds(look, "k", 5, task_id(1))


def test_a_kind_that_is_claimed_often_takes_no_look_from_the_front_from_another() -> None:
    passed = Passed()
    for kind in ("k", "l"):
        passed.claimed(look := passed.begin([kind], 0.0, follows=True), [(kind, 0, task_id(5))])
        passed.end(look, 1.0, 0.0)
    passed.end(passed.begin(["k"], SHARE, follows=True), 1.0, SHARE)
    assert passed.begin(["k", "l"], SHARE + 1.0, follows=True).ranges == [
        Range("k", FIRST, NO_ID, -1),
        Range("k", 0, task_id(5), LAST),
        WHOLE._replace(kind="l"),
    ]


def test_a_look_that_hung_does_not_put_off_the_next_from_the_front_for_long() -> None:
    passed = Passed()
    claim(passed, ("k", 0, task_id(5)), took=600.0)
    assert claim(passed, now=LONGEST).ranges == [WHOLE]


def test_ranks_with_a_place_are_bounded() -> None:
    passed = Passed()
    claim(passed, *(("k", rank, task_id(1)) for rank in range(30)))
    assert len(claim(passed).ranges) <= MOST + 1


@pytest.mark.parametrize("seed", range(20))
def test_claims_find_what_is_ready_in_the_order_of_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    passed, ready, number = Passed(), set[tuple[int, UUID]](), 0
    claim(passed)
    for _ in range(300):
        for _ in range(chance.randrange(4)):
            number += 1
            # Now and then an old one becomes ready again.
            one = (-chance.choice([0, 0, 0, 5, -5, *range(-20, 20)]), task_id(chance.choice([number, number // 2 + 1])))
            ready.add(one)
            passed.readied("k", -one[0], one[1])
        look = passed.begin(["k"], 0.1, follows=True)
        found = sorted(one for one in ready if holds(look, "k", *one))
        assert found == sorted(ready)
        taken = found[: chance.randrange(4)]
        ready -= set(taken)
        passed.claimed(look, [("k", *one) for one in taken])
        passed.end(look, 0.0, 0.1)
