"""Declared fields: one declaration checks a value and describes it to clients.

A field takes a JSON value (or, from a query string, its text), gives back the value that taskd works with, and says
what is wrong otherwise. Its `schema()` is the JSON Schema that goes into OpenAPI, so that documentation and
check can't come apart. Nothing here raises for a bad value: it returns a `Bad`, and the form collects them all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from taskd.domain.codec import MAX_DEPTH, Repeated, dump_json

Schema = dict[str, Any]

MAX_SHOWN = 100
"""Characters of a name that are shown to whoever gave it."""


class Bad(NamedTuple):
    """What is wrong with a value, as the end of a sentence that begins with the field's name."""

    message: str


class Field(Protocol):
    """Checks one value."""

    def check(self, value: Any) -> Any:
        """Return the value to work with, or a `Bad`."""

    def read(self, text: str) -> Any:
        """Return the value to work with, from the text of a query parameter, or a `Bad`."""

    def schema(self) -> Schema:
        """Return its JSON Schema."""


_NO_NUL = "^[^\\u0000]*$"


def text_fault(text: str) -> str | None:
    """Return what makes a string impossible to store, or None."""
    if "\0" in text:
        return "must not contain NUL"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode, without lone surrogates or bytes that are no UTF-8"
    return None


def shown(name: str) -> str:
    """Return a name that somebody gave as a message can carry it: cut, and escaped where it would do more than show."""
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in name[:MAX_SHOWN])


class Text(NamedTuple):
    """A string of `shortest` to `longest` characters (code points), that matches `pattern` as a whole."""

    shortest: int
    longest: int
    pattern: str | None = None

    def check(self, value: Any) -> str | Bad:
        if not isinstance(value, str):
            return Bad("must be a string")
        if fault := text_fault(value):
            return Bad(fault)
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return Bad(f"must match {self.pattern}")
        if not self.shortest <= len(value) <= self.longest:
            return Bad(f"must be {self.shortest} to {self.longest} characters long, not {len(value)}")
        return value

    def read(self, text: str) -> str | Bad:
        return self.check(text)

    def schema(self) -> Schema:
        schema: Schema = {"type": "string", "minLength": self.shortest, "maxLength": self.longest}
        schema["pattern"] = f"^{self.pattern}$" if self.pattern else _NO_NUL
        return schema


class Integer(NamedTuple):
    """A whole number from `least` to `most`; 5.0 is one too, as JSON Schema has it."""

    least: int
    most: int

    def check(self, value: Any) -> int | Bad:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return Bad("must be an integer")
        if not self.least <= value <= self.most:
            return Bad(f"must be between {self.least} and {self.most}")
        return value

    def read(self, text: str) -> int | Bad:
        # int() would take spaces, underscores and other scripts' digits.
        if not re.fullmatch("-?[0-9]{1,20}", text, re.ASCII):
            return Bad("must be an integer")
        return self.check(int(text))

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Number(NamedTuple):
    """A finite number above `above`, up to `most`."""

    above: float
    most: float

    def check(self, value: Any) -> float | Bad:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Bad("must be a number")
        # Also false for NaN.
        if not self.above < value <= self.most:
            return Bad(f"must be above {self.above:g} and at most {self.most:.12g}")
        return float(value) or Bad(f"must be above {self.above:g}")

    def read(self, text: str) -> float | Bad:
        if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", text, re.ASCII):
            return Bad("must be a number")
        return self.check(float(text))

    def schema(self) -> Schema:
        return {"type": "number", "exclusiveMinimum": self.above, "maximum": self.most}


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
# asyncpg's for PostgreSQL's infinities (its `infinity_datetime` and `negative_infinity_datetime`): stored as such, they
# come back without a zone, and can't be reckoned with.
_INFINITIES = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class Time:
    """An RFC 3339 time; digits beyond microseconds are cut off, a leap second is the second after it.

    The first and the last moment that Python has are none: to the database they are minus and plus infinity.
    """

    def check(self, value: Any) -> datetime | Bad:
        if not isinstance(value, str):
            return Bad("must be a string with an RFC 3339 time")
        match = _RFC3339.fullmatch(value)
        if match is None:
            return Bad("must be an RFC 3339 time, 2026-01-31T12:00:00Z for example")
        date, minute, second, fraction, zone = match.groups()
        leap = second == "60"
        text = f"{date}T{minute}:{'59' if leap else second}{(fraction or '.0')[:7]:0<7}{zone.upper()}"
        try:
            at = datetime.fromisoformat(text).astimezone(UTC) + timedelta(seconds=leap)
        except (ValueError, OverflowError):
            return Bad("must be a time that exists, from year 1 to 9999")
        if at in _INFINITIES:
            return Bad("must be later than the first moment of year 1, and before the last microsecond of year 9999")
        return at

    read = check

    def schema(self) -> Schema:
        return {"type": "string", "format": "date-time"}


class Choice(NamedTuple):
    """One of some strings."""

    values: tuple[str, ...]

    def check(self, value: Any) -> str | Bad:
        if not isinstance(value, str) or value not in self.values:
            return Bad(f"must be one of: {', '.join(self.values)}")
        return value

    def read(self, text: str) -> str | Bad:
        return self.check(text)

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.values)}


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Id:
    """A UUID in its usual form of 36 characters."""

    def check(self, value: Any) -> UUID | Bad:
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            return Bad("must be a UUID")
        # Without the looks for other forms that `UUID(value)` takes.
        return UUID(int=int(value.replace("-", ""), 16))

    read = check

    def schema(self) -> Schema:
        return {"type": "string", "format": "uuid"}


LEAST_INTEGER = -(2**63)
MOST_INTEGER = 2**64 - 1

JSON_REF = "#/components/schemas/Json"
"""Where OpenAPI has the schema of any JSON value that can be stored: what `json_schema` returns."""


def json_schema() -> Schema:
    """Return the JSON Schema of what `json_fault` has no fault with, but for its depth."""
    return {
        "description": f"any JSON value, nested at most {MAX_DEPTH} deep",
        "type": ["null", "boolean", "number", "string", "array", "object"],
        "pattern": _NO_NUL,
        "if": {"type": "integer"},
        "then": {"minimum": LEAST_INTEGER, "maximum": MOST_INTEGER},
        "items": {"$ref": JSON_REF},
        "propertyNames": {"pattern": _NO_NUL},
        "additionalProperties": {"$ref": JSON_REF},
    }


_Path = tuple["_Path", "str | int"] | None
"""Where a value is: in what, and under which key or number; None: it is the whole. Put into words only for a fault."""


def _at(path: _Path) -> str:
    steps: list[str | int] = []
    while path is not None:
        path, step = path
        steps.append(step)
    place = ""
    for step in reversed(steps):
        if isinstance(step, int):
            place += f"[{step}]"
        else:
            place += f".{shown(step)}" if place else shown(step)
    return f", at {place}" if place else ""


def json_fault(value: Any, path: _Path = None, depth: int = 1) -> str | None:
    """Return what makes a parsed JSON value impossible to store and give back exactly, or None."""
    if depth > MAX_DEPTH:
        return f"must not be nested deeper than {MAX_DEPTH}"
    if isinstance(value, str):
        fault = text_fault(value)
        return fault and fault + _at(path)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"must hold finite numbers only{_at(path)}"
    if isinstance(value, int):
        fits = LEAST_INTEGER <= value <= MOST_INTEGER
        return None if fits else f"must hold integers of at most 64 bits{_at(path)}"
    if isinstance(value, list):
        faults = (json_fault(item, (path, n), depth + 1) for n, item in enumerate(value))
        return next(filter(None, faults), None)
    if isinstance(value, dict):
        return _object_fault(value, path, depth)
    return None


def _object_fault(value: dict[str, Any], path: _Path, depth: int) -> str | None:
    if isinstance(value, Repeated):
        return f"must not give the key '{shown(value.key)}' twice{_at(path)}"
    for key, item in value.items():
        if fault := text_fault(key):
            return f"{fault}, in the key '{shown(key)}'"
        if fault := json_fault(item, (path, key), depth + 1):
            return fault
    return None


class JsonObject(NamedTuple):
    """A JSON object of at most `most_bytes` as compact UTF-8; comes out as that text."""

    most_bytes: int

    def check(self, value: Any) -> str | Bad:
        if not isinstance(value, dict):
            return Bad("must be a JSON object")
        if fault := json_fault(value):
            return Bad(fault)
        text = dump_json(value)
        size = len(text) if text.isascii() else len(text.encode())
        if size > self.most_bytes:
            return Bad(f"must be at most {self.most_bytes} bytes as JSON, not {size}")
        return text

    def read(self, text: str) -> Bad:
        return Bad("can't be given in a query")

    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"pattern": _NO_NUL},
            "additionalProperties": {"$ref": JSON_REF},
        }


class ListOf(NamedTuple):
    """A list of `shortest` to `longest` items, each checked; in a query, a parameter that may be repeated."""

    item: Field
    shortest: int
    longest: int

    def check(self, value: Any) -> tuple[Any, ...] | Bad:
        if not isinstance(value, list):
            return Bad("must be a list")
        return self._all([self.item.check(item) for item in value])

    def read_all(self, texts: Sequence[str]) -> tuple[Any, ...] | Bad:
        """Return the values of all occurrences of a query parameter, or a `Bad`."""
        return self._all([self.item.read(text) for text in texts])

    def read(self, text: str) -> tuple[Any, ...] | Bad:
        return self.read_all([text])

    def _all(self, items: list[Any]) -> tuple[Any, ...] | Bad:
        if not self.shortest <= len(items) <= self.longest:
            return Bad(f"must have {self.shortest} to {self.longest} items, not {len(items)}")
        for item in items:
            if isinstance(item, Bad):
                return item
        return tuple(items)

    def schema(self) -> Schema:
        return {
            "type": "array",
            "items": self.item.schema(),
            "minItems": self.shortest,
            "maxItems": self.longest,
        }
