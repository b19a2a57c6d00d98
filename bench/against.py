"""taskd beside what people use instead, in one run on one machine, turn by turn.

    python -m bench.against rest [--rounds 5] [--seconds 4] [--size 100000] [--write]
    python -m bench.against all --mini

Prints a table for each kind of work: medians of all rounds, with the least and the most in brackets, and the server's
processor time for each piece; and what taskd is to the others. `--write` puts the tables into docs/benchmarks.md, with
a plot, and the figures into bench/results/. `--mini` sees that all runs, and no more. A slow machine slows all alike:
compare, and take absolute figures for what they are.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from bench.report import Row, machine, write

NAMES = {name: f"bench.{name}" for name in ("rest", "queue", "growth", "fanout", "latency", "footprint")} | {
    "grpc": "bench.grpc_get"
}
"""What can be measured, and the modules that do; none is named as a package that it measures."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        rounds: times that each contender has its turn.
        seconds: that a load goes on.
        size: tasks; 0: as many as the work is described with.
        held: seconds of work under a transaction that stays open.
        mini: whether only to see that it runs.
    """

    rounds: int = 5
    seconds: float = 4.0
    size: int = 0
    held: float = 600.0
    mini: bool = False


class Benchmark(Protocol):
    """A module that measures something."""

    PACKAGES: Sequence[str]
    """Whose versions matter."""

    def measure(self, extent: Extent) -> tuple[str, Sequence[Row]]:
        """Return how much was measured, in words, and what was found."""


def run(name: str, extent: Extent, keep: bool) -> None:
    """Measure, print, and write if it is to be kept."""
    module = cast(Benchmark, importlib.import_module(NAMES[name]))
    words, rows = module.measure(extent)
    head = f"{machine(module.PACKAGES)}\n{words}"
    print(head, *(row.table() for row in rows), sep="\n\n", flush=True)
    if keep:
        write(name, head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*NAMES, "all"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--size", type=int, default=0, help="tasks")
    parser.add_argument("--held", type=float, default=600.0, help="seconds that a transaction is held open")
    parser.add_argument("--mini", action="store_true", help="see that it runs, and no more")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    asked = parser.parse_args()
    extent = Extent(asked.rounds, asked.seconds, asked.size, asked.held)
    if asked.mini:
        extent = Extent(1, 1.0, 0, 1.0, mini=True)
    for name in NAMES if asked.what == "all" else (asked.what,):
        run(name, extent, asked.write)


if __name__ == "__main__":
    main()
