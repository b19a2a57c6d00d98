"""The bounded map whose entries end by time: single steps, and all of it against a plain dict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskd.cache.ttl import TTLCache
from tests.cache.conftest import FakeClock


class World:
    """A cache, its clock, and who left it."""

    def __init__(self, *, entries: int = 3, size: int = 100) -> None:
        self.clock = FakeClock()
        self.left: list[tuple[str, str]] = []
        self.cache: TTLCache[str, int] = TTLCache(
            ttl=10, entries=entries, size=size, clock=self.clock, on_leave=lambda key, why: self.left.append((key, why))
        )


@pytest.fixture
def world() -> World:
    return World()


def test_a_value_is_there_until_its_deadline_and_not_at_it(world: World) -> None:
    assert world.cache.put("a", 1)
    world.clock.now += 9.99
    assert world.cache.get("a") == 1
    world.clock.now += 0.01
    assert world.cache.get("a") is None
    assert world.left == [("a", "expired")]
    assert len(world.cache) == 0


def test_a_put_may_name_its_own_deadline(world: World) -> None:
    world.cache.put("a", 1, deadline=world.clock.now + 1)
    world.clock.now += 1
    assert world.cache.get("a") is None


def test_a_value_that_is_past_its_deadline_is_not_kept_and_ends_the_one_before(world: World) -> None:
    world.cache.put("a", 1)
    assert not world.cache.put("a", 2, deadline=world.clock.now)
    assert world.cache.get("a") is None
    assert world.left == [("a", "expired")]


def test_the_one_unused_for_longest_gives_way(world: World) -> None:
    for key in "abc":
        world.cache.put(key, 0)
    world.cache.get("a")
    world.cache.put("d", 0)
    assert list(world.cache) == ["c", "a", "d"]
    assert world.left == [("b", "entries")]


def test_bytes_are_bounded_and_as_many_leave_as_must(world: World) -> None:
    world.cache.put("a", 0, size=50)
    world.cache.put("b", 0, size=50)
    world.cache.put("c", 0, size=51)
    assert world.left == [("a", "bytes"), ("b", "bytes")]
    assert world.cache.size == 51


def test_a_value_larger_than_all_may_be_is_not_kept_and_drives_nobody_out(world: World) -> None:
    world.cache.put("a", 1, size=60)
    world.cache.put("b", 1, size=40)
    assert not world.cache.put("b", 2, size=101)
    assert world.cache.get("a") == 1
    # What was under its key is not its value any more.
    assert world.cache.get("b") is None
    assert world.left == [("b", "bytes")]


def test_what_is_due_makes_room_before_what_is_not(world: World) -> None:
    world.cache.put("old", 0)
    world.cache.put("due", 0, deadline=world.clock.now + 1)
    world.cache.put("c", 0)
    world.clock.now += 1
    world.cache.put("d", 0)
    assert world.left == [("due", "expired")]
    assert list(world.cache) == ["old", "c", "d"]


def test_a_new_value_takes_the_place_of_the_old_one_without_its_leaving(world: World) -> None:
    world.cache.put("a", 1, size=60)
    world.clock.now += 5
    world.cache.put("a", 2, size=70)
    assert world.cache.size == 70
    world.clock.now += 5
    assert world.cache.expire() == world.clock.now + 5
    assert world.cache.get("a") == 2
    assert world.left == []


def test_a_pop_says_why_and_gives_the_value(world: World) -> None:
    world.cache.put("a", 1)
    world.cache.put("b", 2)
    assert world.cache.pop("a") == 1
    assert world.cache.pop("a") is None
    world.clock.now += 10
    assert world.cache.pop("b", "because") is None
    assert world.left == [("a", "invalidated"), ("b", "expired")]


def test_expire_takes_what_is_due_and_tells_the_next_deadline(world: World) -> None:
    assert world.cache.expire() is None
    now = world.clock.now
    for key, seconds in (("a", 3), ("b", 1), ("c", 2)):
        world.cache.put(key, 0, deadline=now + seconds)
    assert world.cache.expire() == now + 1
    world.clock.now = now + 2
    assert world.cache.expire() == now + 3
    assert world.left == [("b", "expired"), ("c", "expired")]


def test_expire_takes_no_more_than_it_is_told_and_says_that_more_is_due(world: World) -> None:
    for key in "abc":
        world.cache.put(key, 0)
    world.clock.now += 10
    assert world.cache.expire(2) == world.clock.now
    assert len(world.cache) == 1
    assert world.cache.expire(2) is None


def test_clear_takes_all_without_a_word(world: World) -> None:
    world.cache.put("a", 1, size=5)
    world.cache.clear()
    assert (len(world.cache), world.cache.size, world.left) == (0, 0, [])
    assert world.cache.expire() is None


def test_the_heap_stays_within_twice_the_dict_however_often_one_key_is_put(world: World) -> None:
    for number in range(1000):
        world.cache.put("ab"[number % 2], number)
        assert len(world.cache._deadlines) <= 2 * len(world.cache)


@pytest.mark.parametrize("bad", [{"ttl": 0}, {"ttl": float("nan")}, {"entries": 0}, {"size": -1}])
def test_bounds_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wants"):
        TTLCache(**({"ttl": 1, "entries": 1, "size": 1} | bad))


KEYS = st.sampled_from("abcdefgh")


class Model(RuleBasedStateMachine):
    """A list in the order of use, of which everything that is due or too much is taken out by search."""

    ENTRIES, SIZE, TTL = 4, 50, 10

    def __init__(self) -> None:
        super().__init__()
        self.world = World(entries=self.ENTRIES, size=self.SIZE)
        self.known: list[tuple[str, int, int, float]] = []
        self.left: list[tuple[str, str]] = []

    def find(self, key: str) -> tuple[str, int, int, float] | None:
        return next((entry for entry in self.known if entry[0] == key), None)

    def drop(self, entry: tuple[str, int, int, float], why: str) -> None:
        self.known.remove(entry)
        self.left.append((entry[0], why))

    def drop_due(self) -> None:
        for entry in [entry for entry in self.known if entry[3] <= self.world.clock.now]:
            self.drop(entry, "expired")

    @rule(key=KEYS, value=st.integers(), size=st.integers(0, 60), seconds=st.none() | st.integers(-1, 20))
    def put(self, key: str, value: int, size: int, seconds: int | None) -> None:
        now = self.world.clock.now
        deadline = now + (self.TTL if seconds is None else seconds)
        kept = self.world.cache.put(key, value, size=size, deadline=None if seconds is None else deadline)
        assert kept == (deadline > now and size <= self.SIZE)
        old = self.find(key)
        if not kept:
            if old:
                why = "expired" if old[3] <= now or size <= self.SIZE else "bytes"
                self.drop(old, why)
            return
        if old:
            self.known.remove(old)
        self.known.append((key, value, size, deadline))
        if len(self.known) > self.ENTRIES or sum(entry[2] for entry in self.known) > self.SIZE:
            self.drop_due()
        while len(self.known) > self.ENTRIES:
            self.drop(self.known[0], "entries")
        while sum(entry[2] for entry in self.known) > self.SIZE:
            self.drop(self.known[0], "bytes")

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        found = self.world.cache.get(key)
        entry = self.find(key)
        if entry and entry[3] <= self.world.clock.now:
            self.drop(entry, "expired")
            entry = None
        if entry:
            self.known.append(self.known.pop(self.known.index(entry)))
        assert found == (entry[1] if entry else None)

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        found = self.world.cache.pop(key)
        entry = self.find(key)
        due = entry is not None and entry[3] <= self.world.clock.now
        if entry:
            self.drop(entry, "expired" if due else "invalidated")
        assert found == (entry[1] if entry and not due else None)

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.world.clock.now += seconds

    @rule()
    def expire(self) -> None:
        deadline = self.world.cache.expire()
        self.drop_due()
        assert deadline == min((entry[3] for entry in self.known), default=None)

    @invariant()
    def agree(self) -> None:
        cache = self.world.cache
        assert list(cache) == [entry[0] for entry in self.known]
        assert cache.size == sum(entry[2] for entry in self.known)
        assert len(cache._deadlines) <= 2 * len(cache)
        # Those that are due together leave in the order of their deadlines, not of their use.
        assert sorted(self.world.left) == sorted(self.left)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
