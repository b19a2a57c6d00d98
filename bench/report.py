"""What a benchmark found, against what is wanted: as a table, as JSON, and as a plot."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"
PLOTS = ROOT / "docs" / "benchmarks"

TASKD = "taskd"
FASTEST = "the fastest peer"


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Args:
        value: in the row's unit.
        cpu: microseconds of the server's processor time for each piece of work.
        p50, p99: milliseconds.
    """

    value: float
    cpu: float | None = None
    p50: float | None = None
    p99: float | None = None


COLUMNS = {"cpu": "µs of processor each", "p50": "p50, ms", "p99": "p99, ms"}


@dataclass(frozen=True)
class Goal:
    """What is wanted of the first contender.

    Args:
        limit: how many times what `of` has; without `of`, in the unit of the field.
        of: another contender, or `FASTEST`.
        field: of `Sample`.
        at_most: whether less is better.
    """

    limit: float
    of: str = ""
    field: str = "value"
    at_most: bool = False


@dataclass
class Row:
    """One kind of work.

    Args:
        name: as it is headed.
        unit: what values are.
        goals: what is wanted of the first contender.
        floors: contenders that are no peers, but do as little as can be done.
        digits: of values, behind the point.
    """

    name: str
    unit: str
    goals: Sequence[Goal]
    floors: Sequence[str] = ()
    digits: int = 0
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, contender: str, sample: Sample) -> None:
        """Keep a measurement."""
        self.samples.setdefault(contender, []).append(sample)

    def median(self, contender: str, of: str = "value") -> float:
        """Return the median of a contender's field, or of the fastest peer's value."""
        if contender == FASTEST:
            peers = [name for name in self.samples if name not in self.floors][1:]
            return max(self.median(name) for name in peers)
        return statistics.median(getattr(sample, of) for sample in self.samples[contender])

    def verdicts(self) -> Iterator[str]:
        """Yield what came of each goal."""
        first = next(iter(self.samples))
        for goal in self.goals:
            found = self.median(first, goal.field)
            wanted = "at most " if goal.at_most else ""
            if goal.of:
                found /= self.median(goal.of, goal.field)
                what, unit = f"{found:.2f} × {goal.of}", " ×"
            else:
                unit = f" {self.unit}" if goal.field == "value" else " ms"
                what = (f"{goal.field} " if goal.field != "value" else "") + f"{found:.{max(self.digits, 1)}f}{unit}"
            met = found <= goal.limit if goal.at_most else found >= goal.limit
            yield f"{what}; wanted {wanted}{goal.limit:g}{unit}: {'met' if met else '**missed**'}"

    def table(self) -> str:
        """Return the figures as Markdown."""
        shown = [name for name in COLUMNS if any(getattr(one, name) is not None for one in self._all())]
        heads = "".join(f" {COLUMNS[name]} |" for name in shown)
        lines = [f"**{self.name}**", "", f"| | {self.unit} |{heads}", "| --- | ---: |" + " ---: |" * len(shown)]
        for name, those in self.samples.items():
            values = [f"{value:.{self.digits}f}" for value in sorted(one.value for one in those)]
            median = f"{self.median(name):.{self.digits}f}"
            spread = f" ({values[0]} to {values[-1]})" if len(values) > 1 else ""
            lines.append(f"| {name} | {median}{spread} |" + "".join(f" {self._cell(name, of)} |" for of in shown))
        lines += ["", *(f"- {verdict}" for verdict in self.verdicts())]
        return "\n".join(lines).strip()

    def _all(self) -> Iterator[Sample]:
        for those in self.samples.values():
            yield from those

    def _cell(self, name: str, of: str) -> str:
        if any(getattr(one, of) is None for one in self.samples[name]):
            return ""
        return f"{self.median(name, of):.{0 if of == 'cpu' else 2}f}"


def machine(packages: Sequence[str]) -> str:
    """Return what it was measured on, and with which versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({model[1] if model else platform.machine()}), load"
        f" {os.getloadavg()[0]:.1f} at the end, Linux {platform.release().partition('-')[0]},"
        f" Python {platform.python_version()}; {versions}."
    )


def version_of(*command: str) -> str:
    """Return the version that a program tells."""
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d[\w.]+", told.stdout + told.stderr)
    return found[0] if found else "?"


def write(name: str, head: str, rows: Sequence[Row]) -> None:
    """Put tables and plots into the page, and the figures beside."""
    from bench.plot import plot

    RESULTS.mkdir(exist_ok=True)
    figures = {row.name: {who: list(map(asdict, those)) for who, those in row.samples.items()} for row in rows}
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": head, "figures": figures}, indent=1) + "\n", "utf-8")
    PLOTS.mkdir(exist_ok=True)
    plot(rows, PLOTS / f"{name}.svg")
    text = f"{head}\n\n![{name}](benchmarks/{name}.svg)\n\n" + "\n\n".join(row.table() for row in rows)
    page = PAGE.read_text("utf-8")
    mark = f"<!-- bench.against {name} -->"
    if page.count(mark) != 2:
        raise SystemExit(f"{PAGE} has not two lines {mark}")
    before, _, after = page.split(mark)
    PAGE.write_text(f"{before}{mark}\n{text}\n{mark}{after}", "utf-8")
