"""What was measured: rows, as a table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from taskd.cli.screen import printable

_RED = 31


@dataclass(slots=True)
class Row:
    """One kind of work.

    Args:
        name: of it.
        unit: of `value`, a rate.
        value: None: there is none, or only times.
        times: seconds that single pieces took.
        number: of pieces.
        limited: requests that the server did not want yet (429).
        fault: why there is no figure that counts.
    """

    name: str
    unit: str
    value: float | None = None
    times: list[float] = field(default_factory=list)
    number: int = 0
    limited: int = 0
    fault: str | None = None

    def percentile(self, percent: int) -> float | None:
        """Return so many milliseconds that so many percent took no longer."""
        if not self.times:
            return None
        if len(self.times) == 1:
            return self.times[0] * 1000
        return statistics.quantiles(self.times, n=100, method="inclusive")[percent - 1] * 1000

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": None if self.value is None else round(self.value, 1),
            "p50_ms": _rounded(self.percentile(50)),
            "p99_ms": _rounded(self.percentile(99)),
            "number": self.number,
            "limited": self.limited,
            "fault": self.fault,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def table(rows: Sequence[Row], colours: bool) -> str:
    """Return rows as a table."""
    cells = [("", "rate", "p50, ms", "p99, ms", "of")]
    cells += [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = []
    for first, *rest in cells:
        lines.append("  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]))
    for n, row in enumerate(rows, 1):
        if row.fault is not None:
            text = printable(row.fault)
            lines[n] = f"{row.name.ljust(widths[0])}  " + (f"\x1b[{_RED}m{text}\x1b[0m" if colours else text)
        elif row.limited:
            lines[n] += f"  ({row.limited} times slowed down by 429)"
    return "\n".join(line.rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    if row.fault is not None:
        return row.name, "", "", "", ""
    value = "" if row.value is None else f"{row.value:,.0f} {row.unit}"
    p50, p99 = ("" if found is None else f"{found:.2f}" for found in map(row.percentile, (50, 99)))
    return row.name, value, p50, p99, f"{row.number:,}"
