"""`dataclass` for what is loaded at every start.

The standard library's compiles up to six functions for each class: on Python 3.11 two thirds of a millisecond, and with
ninety classes half of what a start takes besides importing the dependencies. This one finds the fields as that one
does, but compiles only `__init__`, and that when the first instance is made; the other methods are functions that all
classes share. What it makes is a dataclass for `dataclasses.replace`, `fields` and all others.

It knows what is used here: `frozen`, `slots` and `kw_only`; `field` with a default, a factory, `repr` and `compare`;
and `__post_init__`. Type checkers are shown the standard one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False) -> Callable[[type], type]:
        """Return a decorator as `dataclasses.dataclass` does."""

        def make(cls: type) -> type:
            # Of the class itself; what it inherits is not its own.
            own = vars(cls).copy()
            # Left out, the standard one makes it of the signature, and that by reading tokens.
            cls.__doc__ = cls.__doc__ or cls.__name__
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            if "__init__" not in own:
                made.__init__ = _first_init(made, frozen)
            if "__repr__" not in own:
                made.__repr__ = _repr
            if "__eq__" not in own:
                names = [field.name for field in dataclasses.fields(made) if field.compare]
                made.__values__ = staticmethod(attrgetter(*names) if names else _no_values)
                made.__eq__ = _eq
                made.__hash__ = own.get("__hash__", _hash) if frozen else None
            if frozen:
                made.__setattr__, made.__delattr__ = _refuse, _refuse
                if slots:
                    made.__getstate__, made.__setstate__ = _getstate, _setstate
            return made

        return make


def _no_values(_: object) -> tuple[()]:
    return ()


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is self.__class__:
        return self.__values__(self) == other.__values__(other)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(self.__values__(self))


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"a {type(self).__qualname__} is never changed, and so not its {name}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    # What pickles and copies are made by: no `__init__` has run.
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


def _first_init(cls: Any, frozen: bool) -> Callable[..., None]:
    """Return an `__init__` that makes the real one, and takes its own place by it."""

    def __init__(self: Any, *args: Any, **names: Any) -> None:
        if cls.__init__ is __init__:
            cls.__init__ = _init(cls, frozen)
        cls.__init__(self, *args, **names)

    return __init__


def _init(cls: Any, frozen: bool) -> Callable[..., None]:
    """Compile an `__init__` with the fields as its parameters."""
    known: dict[str, Any] = {"new": object(), "set": object.__setattr__}
    parameters: list[str] = []
    keywords: list[str] = []
    lines: list[str] = []
    for field in dataclasses.fields(cls):
        name = value = field.name
        parameter = name
        if field.default is not dataclasses.MISSING:
            known[f"default_{name}"] = field.default
            parameter = f"{name}=default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            known[f"make_{name}"] = field.default_factory
            parameter, value = f"{name}=new", f"make_{name}() if {name} is new else {name}"
        (keywords if field.kw_only else parameters).append(parameter)
        lines.append(f"set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    head = ", ".join(["self", *parameters, *(["*", *keywords] if keywords else [])])
    body = "\n    ".join(lines or ["pass"])
    # The values behind defaults are reached as globals of its own: a parameter of the same name hides none of them.
    exec(f"def __init__({head}):\n    {body}", known)
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made
