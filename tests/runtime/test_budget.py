"""A bound on the sum of what many hold."""

from __future__ import annotations

import random

from taskd.runtime.budget import Budget
from taskd.runtime.descriptors import RESERVED, Shares


def test_who_holds_some_for_longest_gives_way() -> None:
    budget: Budget[str] = Budget(10)
    assert budget.hold("a", 4) == budget.hold("b", 4) == []
    # To hold more does not make anybody younger.
    assert budget.hold("a", 5) == []
    assert budget.oldest() == "a"
    assert budget.hold("c", 2) == ["a"]
    assert budget.hold("d", 9) == ["b", "c"]
    assert (budget.held, len(budget)) == (9, 1)


def test_who_has_let_go_begins_anew() -> None:
    budget: Budget[str] = Budget(10)
    for name in "ab":
        budget.hold(name, 4)
    assert budget.hold("a", 0) == budget.hold("nobody", 0) == []
    budget.hold("a", 4)
    assert budget.oldest() == "b"
    assert budget.hold("c", 4) == ["b"]


def test_who_is_alone_may_hold_more() -> None:
    budget: Budget[str] = Budget(10)
    assert budget.hold("a", 11) == []
    assert budget.hold("b", 1) == ["a"]
    assert budget.hold("b", 100) == []


def test_the_sum_is_that_of_all_and_never_above_the_bound() -> None:
    dice, budget, model = random.Random(1), Budget[int](1000), dict[int, int]()
    for _ in range(5000):
        item, size = dice.randrange(50), dice.choice([0, 1, 10, 100, 500])
        gone = budget.hold(item, size)
        model.pop(item, None) if not size else model.update({item: size})
        for one in gone:
            del model[one]
        assert budget.held == sum(model.values()) <= 1000
        assert len(budget) == len(model)


def test_descriptors_are_shared_out() -> None:
    assert Shares.of(1_048_576, 10_000, 10_000) == Shares(10_000, 10_000)
    few = Shares.of(256, 10_000, 10_000)
    # With those that are being closed, a quarter of the sockets.
    assert few.http + few.sockets * 5 // 4 <= 256 - RESERVED
    assert Shares.of(10, 10_000, 10_000) == Shares(8, 8)
