"""Bars of what was measured, as an SVG for the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from bench.report import Row

matplotlib.use("svg")
# No name of a run in the file: two plots of the same figures are the same.
matplotlib.rcParams.update({"svg.hashsalt": "taskd", "svg.fonttype": "none", "font.size": 9})

FIRST, PEER, FLOOR = "#1f6f8b", "#b8c4cc", "#dfe5e9"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw a panel for each row: medians, with the least and the most."""
    from matplotlib import pyplot

    heights = [0.55 + 0.3 * len(row.samples) for row in rows]
    figure, panels = pyplot.subplots(
        len(rows), 1, figsize=(7.5, sum(heights) + 0.2), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for row, panel in zip(rows, panels[:, 0], strict=True):
        names = list(row.samples)
        values = [[sample.value for sample in row.samples[name]] for name in names]
        medians = [statistics.median(those) for those in values]
        low = [median - min(those) for median, those in zip(medians, values, strict=True)]
        high = [max(those) - median for median, those in zip(medians, values, strict=True)]
        colours = [FLOOR if name in row.floors else FIRST if number == 0 else PEER for number, name in enumerate(names)]
        bars = panel.barh(names, medians, xerr=[low, high], color=colours, ecolor="#555555", capsize=2)
        panel.bar_label(bars, [f"{median:,.{row.digits}f}" for median in medians], padding=4)
        panel.set_title(f"{row.name} ({row.unit})", loc="left", fontsize=9, fontweight="bold")
        panel.invert_yaxis()
        panel.margins(x=0.18)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(bottom=False, labelbottom=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
