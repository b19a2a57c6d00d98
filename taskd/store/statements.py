"""SQL from the files of `store/sql`.

A file holds statements, each under a line `-- name: x` and a comment that gives its reason. A statement may have
optional lines, which end in `--? flag`; `compose` keeps those whose flag is given, and numbers `:name` parameters in
the order of their first use. So each combination of filters is a statement of its own, with a plan of its own, where
`($1 IS NULL OR owner = $1)` would have none that suits all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FOLDER = Path(__file__).with_name("sql")
_NAME = re.compile(r"^-- name: *([a-z_]+) *$", re.MULTILINE)
_OPTIONAL = re.compile(r"^(.*?) *--\? *([a-z_]+)$")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")


class Statement(NamedTuple):
    """The text of a statement, and the name under which it is measured: `file.name`."""

    name: str
    text: str


@cache
def load(file: str) -> Mapping[str, Statement]:
    """Return the statements of `sql/<file>.sql` by name."""
    text = (_FOLDER / f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    found: dict[str, Statement] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"{file}.sql has two statements {name}")
        found[name] = Statement(f"{file}.{name}", body.strip().rstrip(";"))
    return found


def compose(statement: Statement, values: Mapping[str, Any], flags: frozenset[str]) -> tuple[Statement, list[Any]]:
    """Return a statement with the optional lines of `flags` only, and the arguments it takes, in order."""
    text, names = _composed(statement, flags)
    return text, [values[name] for name in names]


@cache
def _composed(statement: Statement, flags: frozenset[str]) -> tuple[Statement, tuple[str, ...]]:
    lines: list[str] = []
    for line in statement.text.splitlines():
        optional = _OPTIONAL.match(line)
        if optional is None:
            lines.append(line)
        elif optional[2] in flags:
            lines.append(optional[1])
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(statement.name, _PARAMETER.sub(number, "\n".join(lines))), tuple(names)
