"""`record.dataclass` is the standard one, as far as it goes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from taskd.record import dataclass as record


def _frozen(dataclass: Any) -> Any:
    @dataclass(frozen=True, slots=True)
    class Frozen:
        """A pair, and more."""

        one: int
        two: str = "x"
        three: list[int] = field(default_factory=list)
        secret: str = field(default="s", repr=False)
        aside: object = field(default=None, compare=False)

    return Frozen


def _open(dataclass: Any) -> Any:
    @dataclass(slots=True)
    class Open:
        one: int
        two: str = "x"

    return Open


def _checked(dataclass: Any) -> Any:
    @dataclass(frozen=True, kw_only=True)
    class Checked:
        one: int = 1

        def __post_init__(self) -> None:
            if self.one < 0:
                raise ValueError("too small")

        def __repr__(self) -> str:
            return "its own"

        def __hash__(self) -> int:
            return 7

    return Checked


KINDS = [_frozen, _open, _checked]


@record(frozen=True, slots=True)
class Known:
    """Where pickles find it."""

    one: int
    two: tuple[int, ...] = ()


@pytest.mark.parametrize("kind", KINDS)
def test_both_are_made_shown_and_compared_alike(kind: Any) -> None:
    for one in (kind(dataclasses.dataclass), kind(record)):
        made = one(one=5)
        assert dataclasses.is_dataclass(one)
        assert dataclasses.fields(one)[0].name == "one"
        assert made == one(one=5) != one(one=6)
        assert made != object()
        assert dataclasses.replace(made, one=6) == one(one=6)
        assert repr(made) == repr(kind(dataclasses.dataclass)(one=5))
        assert hasattr(made, "__dict__") is (kind is _checked)
        with pytest.raises(TypeError):
            one(one=5, other=6)


@pytest.mark.parametrize("dataclass", [dataclasses.dataclass, record])
def test_what_is_frozen_stays_so(dataclass: Any) -> None:
    made = _frozen(dataclass)(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.one = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.one
    assert (made.one, made.two, made.three) == (1, "x", [])
    assert made.three is not _frozen(dataclass)(1).three
    other = _open(dataclass)(1)
    other.one = 2
    assert other.one == 2


@pytest.mark.parametrize("dataclass", [dataclasses.dataclass, record])
def test_only_what_can_not_change_has_a_hash(dataclass: Any) -> None:
    with pytest.raises(TypeError):
        hash(_open(dataclass)(1))
    assert hash(_checked(dataclass)()) == 7


def test_equal_ones_have_the_same_hash() -> None:
    assert hash(Known(1, (2,))) == hash(Known(1, (2,)))
    assert len({Known(1), Known(1), Known(2)}) == 2


@pytest.mark.parametrize("dataclass", [dataclasses.dataclass, record])
def test_a_check_of_the_fields_is_called(dataclass: Any) -> None:
    one = _checked(dataclass)
    with pytest.raises(ValueError, match="too small"):
        one(one=-1)
    with pytest.raises(TypeError):
        one(1)


def test_copies_and_pickles_are_equal() -> None:
    made = Known(1, (2, 3))
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made


def test_patterns_match_by_place() -> None:
    match Known(1, (2,)):
        case Known(one, two):
            assert (one, two) == (1, (2,))


def test_a_type_that_is_another_is_not_equal() -> None:
    assert _frozen(record)(1) != _frozen(record)(1)
