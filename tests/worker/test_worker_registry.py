"""Handlers are checked where they are declared, and faults name what they are of."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from taskd.domain.retry import RetryPolicy
from taskd.errors import ConfigError
from taskd.worker.registry import Registry, handler


async def good(task: Any, ctx: Any) -> None:
    """A handler."""


def plain(task: Any, ctx: Any) -> None:
    """A handler."""


class Callable:
    async def __call__(self, task: Any, ctx: Any) -> None:
        """A handler."""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("made_for_this_test")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_a_handler_keeps_what_was_given() -> None:
    registry = Registry()
    registry.add("b", good, timeout=1.5, max_attempts=3, retry=RetryPolicy(2))
    registry.add("a", plain)
    found = registry.get("b")
    assert found is not None
    assert (found.timeout, found.max_attempts, found.retry.first) == (1.5, 3, 2)
    assert registry.kinds == ("a", "b")
    assert registry.get("c") is None


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(good, True), (plain, False), (Callable(), True), (functools.partial(good), True), (lambda t, c: 1, False)],
)
def test_it_is_known_what_runs_in_a_thread(function: Any, is_async: bool) -> None:
    registry = Registry()
    registry.add("k", function)
    found = registry.get("k")
    assert found is not None
    assert found.is_async is is_async


async def _generator(task: Any, ctx: Any) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("", {}),
        ("Upper", {}),
        ("a" * 65, {}),
        ("a b", {}),
        (7, {}),
        ("k", {"timeout": 0}),
        ("k", {"timeout": float("inf")}),
        ("k", {"timeout": True}),
        ("k", {"timeout": "5"}),
        ("k", {"max_attempts": 0}),
        ("k", {"max_attempts": 101}),
        ("k", {"max_attempts": 2.0}),
        ("k", {"retry": 3}),
        ("k", {"function": 5}),
        ("k", {"function": lambda task: None}),
        ("k", {"function": _generator}),
    ],
)
def test_a_wrong_argument_names_the_kind(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Registry().add(kind, **({"function": good} | options))
    assert repr(kind) in str(caught.value)


def test_a_kind_has_one_handler() -> None:
    registry = Registry()
    registry.add("k", good)
    with pytest.raises(ConfigError, match="'k' has two handlers"):
        registry.add("k", plain)


def test_the_decorator_marks_and_registers_nothing_by_itself(module: Any) -> None:
    module.one = handler("one", timeout=5)(handler("uno")(lambda task, ctx: 1))
    module.alias = module.one
    first, second = Registry(), Registry()
    first.load(module.__name__)
    first.load(module.__name__)
    assert first.kinds == ("one", "uno")
    assert second.kinds == ()


def test_the_samples_load() -> None:
    registry = Registry()
    registry.load("taskd.worker.samples")
    assert registry.kinds == ("echo", "fail", "flaky", "sleep")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'no\.such\.module' can't be imported"):
        Registry().load("no.such.module")


def test_a_module_without_handlers_is_named(module: Any) -> None:
    with pytest.raises(ConfigError, match="'made_for_this_test' has no function marked"):
        Registry().load(module.__name__)


def test_a_module_with_a_kind_twice_names_both(module: Any) -> None:
    module.one, module.two = handler("k")(lambda t, c: 1), handler("k")(lambda t, c: 2)
    with pytest.raises(ConfigError, match=r"'made_for_this_test': the kind 'k' has two"):
        Registry().load(module.__name__)
