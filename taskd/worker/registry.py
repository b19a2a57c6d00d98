"""Handlers by kind.

There is no global registry: the decorator only marks a function, and `Registry.load` collects the marks of a module,
so two servers in one process may have different handlers of one kind.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from taskd.domain.fields import Bad
from taskd.domain.forms import KIND
from taskd.domain.retry import RetryPolicy
from taskd.errors import ConfigError

MARK = "__taskd_handles__"

HandlerFunction = Callable[..., Any]
F = TypeVar("F", bound=HandlerFunction)


@dataclass(frozen=True, slots=True)
class Handler:
    """What processes the tasks of one kind.

    Args:
        kind: `[a-z0-9_.-]{1,64}`.
        function: called with the task and a `Context`; `async def`, or a plain function, which runs in a thread.
        timeout: seconds an attempt may take; given, it is the limit for the kind, whatever a task says. None: the
            task's `timeout_seconds`.
        max_attempts: 1 to 100; given, it is the limit for the kind, whatever a task says. None: the task's.
        retry: how long to wait between attempts.

    Raises:
        ConfigError: one of them is wrong; the message names the kind.
    """

    kind: str
    function: HandlerFunction
    timeout: float | None = None
    max_attempts: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if isinstance(checked := KIND.check(self.kind), Bad):
            raise ConfigError(f"handler of {self.kind!r}: a kind {checked.message}")
        if fault := self._fault():
            raise ConfigError(f"handler of {self.kind!r}: {fault}")

    def _fault(self) -> str | None:
        if self.timeout is not None and not (_is_number(self.timeout) and 0 < self.timeout < math.inf):
            return "timeout must be a number of seconds above 0"
        if self.max_attempts is not None and not (type(self.max_attempts) is int and 1 <= self.max_attempts <= 100):
            return "max_attempts must be an integer between 1 and 100"
        if not isinstance(self.retry, RetryPolicy):
            return "retry must be a RetryPolicy"
        if not callable(self.function):
            return f"{self.function!r} can't be called"
        if inspect.isasyncgenfunction(self.function) or inspect.isgeneratorfunction(self.function):
            return "it is a generator; a handler returns its result"
        try:
            inspect.signature(self.function).bind(None, None)
        except TypeError:
            return "it must take two arguments: the task and a context"
        except ValueError:
            return None  # some builtins have no signature to look at
        return None

    @property
    def is_async(self) -> bool:
        """Whether it runs in the event loop and not in a thread."""
        call = getattr(self.function, "__call__", None)  # noqa: B004 - the method is wanted, not an answer
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def handler(
    kind: str,
    *,
    timeout: float | None = None,
    max_attempts: int | None = None,
    retry: RetryPolicy | None = None,
) -> Callable[[F], F]:
    """Mark a function of a handlers module (`TASKD_HANDLERS`) as the handler of `kind`; see `Handler`.

    A function may be marked for several kinds.

    Raises:
        ConfigError: an argument is wrong, or the function takes other arguments than a task and a context.
    """

    def mark(function: F) -> F:
        found = Handler(kind, function, timeout, max_attempts, retry or RetryPolicy())
        marks: tuple[Handler, ...] = getattr(function, MARK, ())
        setattr(function, MARK, (*marks, found))
        return function

    return mark


class Registry:
    """The handlers of one server. Kinds may be added while it runs."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._kinds: tuple[str, ...] = ()

    def add(
        self,
        kind: str,
        function: HandlerFunction,
        timeout: float | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Add a handler; see `Handler`.

        Raises:
            ConfigError: an argument is wrong, or the kind has a handler already.
        """
        self._put(Handler(kind, function, timeout, max_attempts, retry or RetryPolicy()))

    def load(self, module: str) -> None:
        """Import a module and add the handlers that `handler` marked in it.

        Raises:
            ConfigError: it can't be imported, marks nothing, or a kind has a handler already; names the module.
        """
        try:
            imported = importlib.import_module(module)
        except ConfigError as error:
            raise ConfigError(f"handlers module {module!r}: {error}") from None
        except Exception as error:
            what = " ".join(str(error).split())
            fault = f"can't be imported: {type(error).__name__}: {what}"
            raise ConfigError(f"handlers module {module!r} {fault}") from error
        # By identity: a function may stand under two names.
        marked = {id(found): found for value in vars(imported).values() for found in _marks(value)}
        if not marked:
            raise ConfigError(f"handlers module {module!r} has no function marked with taskd.handler(kind)")
        for found in marked.values():
            try:
                self._put(found)
            except ConfigError as error:
                raise ConfigError(f"handlers module {module!r}: {error}") from None

    def get(self, kind: str) -> Handler | None:
        """Return the handler of a kind, or None."""
        return self._handlers.get(kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that have a handler, in order of names."""
        return self._kinds

    def _put(self, found: Handler) -> None:
        if self._handlers.get(found.kind) is found:
            return  # the module was loaded before
        if found.kind in self._handlers:
            raise ConfigError(f"the kind {found.kind!r} has two handlers")
        self._handlers[found.kind] = found
        self._kinds = tuple(sorted(self._handlers))


def _marks(value: object) -> tuple[Handler, ...]:
    # Only functions of one's own: a mock or a proxy answers every attribute.
    marks = getattr(value, MARK, ()) if callable(value) else ()
    return marks if isinstance(marks, tuple) else ()
