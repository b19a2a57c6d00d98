"""taskd beside what people use instead, in one run on one machine, turn by turn.

    python -m bench.against [rest] [--rounds 5] [--seconds 4] [--tasks 100000] [--mini] [--write]

Prints a table for each kind of work: medians of all rounds, with the least and the most in brackets, and processor time
of the server per answer; and what taskd is to the others. `--write` puts the tables into docs/benchmarks.md and the
figures into bench/results/. A slow machine slows all alike: compare, and take absolute figures for what they are.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import rest
from bench.servers import Load

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("asyncpg", "uvloop", "fastapi", "uvicorn", "httptools", "aiohttp", "blacksheep", "granian")


@dataclass(frozen=True)
class Goal:
    """What taskd is to be: so many times the rate of a peer, or the fastest of several."""

    ratio: float
    of: str


FASTEST = "the fastest peer"
GOALS: Mapping[str, Sequence[Goal]] = {
    "GET of a cached task": (Goal(0.6, rest.FLOOR), Goal(3, FASTEST), Goal(6, rest.FASTAPI)),
    "GET of a cached list of 50": (Goal(0.6, rest.FLOOR), Goal(3, FASTEST), Goal(6, rest.FASTAPI)),
    "POST of a task, committed": (Goal(3, FASTEST),),
    "GET of an uncached task": (Goal(2, FASTEST),),
}

Loads = dict[str, list[Load]]


def measure_rest(rounds: int, seconds: float, tasks: int) -> dict[str, Loads]:
    """Return the loads of each row by server, round by round."""
    found: dict[str, Loads] = {}
    with rest.running(tasks) as (servers, rows):
        sizes = {row.name: len(servers[0].ask("GET", row.path)) for row in rows[:2]}
        for number in range(rounds):
            for row in rows:
                for server in servers:
                    if not rest.meant(server, row, sizes):
                        continue
                    load = rest.measure(server, row, seconds)
                    name = rest.FLOOR if server.name.startswith(rest.FLOOR) else server.name
                    found.setdefault(row.name, {}).setdefault(name, []).append(load)
                    print(f"{number + 1}/{rounds} {row.name}: {name} {load.rate:.0f}/s", file=sys.stderr)
    return found


def median(loads: Sequence[Load], of: str) -> float:
    return statistics.median(getattr(load, of) for load in loads)


def rate_of(loads: Loads, name: str) -> float:
    """Return the median rate of a peer, or of the fastest of them."""
    if name == FASTEST:
        return max(median(found, "rate") for peer, found in loads.items() if peer not in (rest.TASKD, rest.FLOOR))
    return median(loads[name], "rate")


def table(found: Mapping[str, Loads]) -> str:
    """Return the figures as Markdown."""
    lines = []
    for row, loads in found.items():
        lines += ["", f"**{row}**", "", "| | answers per second | µs of processor each | p50, ms | p99, ms |"]
        lines.append("| --- | ---: | ---: | ---: | ---: |")
        for name, those in loads.items():
            rates = [load.rate for load in those]
            spread = f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"
            cpu, p50, p99 = median(those, "cpu") * 1e6, median(those, "p50"), median(those, "p99")
            lines.append(f"| {name} | {spread} | {cpu:.0f} | {p50:.2f} | {p99:.2f} |")
        lines.append("")
        for goal in GOALS[row]:
            ratio = rate_of(loads, rest.TASKD) / rate_of(loads, goal.of)
            met = "met" if ratio >= goal.ratio else "**missed**"
            lines.append(f"- {ratio:.2f} × {goal.of}; wanted {goal.ratio:g} ×: {met}")
    return "\n".join(lines).strip()


def machine() -> str:
    """Return what it was measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    version = re.search(r"wrk (\S+)", wrk.stdout + wrk.stderr)
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {load:.1f} at the end, Python"
        f" {platform.python_version()}, wrk {version[1] if version else '?'}; {versions}."
    )


def write(name: str, text: str, figures: Any) -> None:
    """Put a table into the page, and its figures beside."""
    page = PAGE.read_text("utf-8")
    mark = f"<!-- bench.against {name} -->"
    before, _, rest_of = page.partition(mark)
    _, _, after = rest_of.partition(mark)
    PAGE.write_text(f"{before}{mark}\n{text}\n{mark}{after}", "utf-8")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["rest"], default="rest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--mini", action="store_true", help="see that it runs, and no more")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    asked = parser.parse_args()
    rounds, seconds, tasks = (1, 1.0, 12_000) if asked.mini else (asked.rounds, asked.seconds, asked.tasks)
    found = measure_rest(rounds, seconds, tasks)
    text = f"{machine()}\n{rounds} rounds of {seconds:g} s, {tasks} tasks.\n\n{table(found)}"
    print(text)
    if asked.write:
        figures = {
            row: {name: list(map(asdict, those)) for name, those in loads.items()} for row, loads in found.items()
        }
        write(asked.what, text, {"machine": machine(), "figures": figures})


if __name__ == "__main__":
    main()
