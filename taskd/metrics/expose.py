"""The registry as text: Prometheus 0.0.4 and OpenMetrics 1.0.

The formats differ in five places only. OpenMetrics names a counter's family without `_total` and an info's without
`_info`, knows the type `info` and a line for the unit, escapes quotes in help as well, and ends with `# EOF`.

All of a series but its numbers is the same in each scrape, so it is written once, as a template, and kept.

Sources: Prometheus, "Exposition formats", text-based format; OpenMetrics 1.0, "ABNF" and "Overall structure".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from taskd.metrics.registry import Family, Histogram, Labels, Registry

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_UNITS = ("seconds", "bytes")


def number(value: float) -> str:
    """Return a number as both formats write it: whole ones without a fraction, `+Inf`, `-Inf`, `NaN`."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def bound(value: float) -> str:
    """Return a bucket's bound, above 0, as all clients write it: Prometheus takes `1`, `1.0` and `1e0` for three.

    Source: OpenMetrics 1.0, "Considerations: Canonical Numbers".
    """
    text = repr(float(value))
    whole, point, fraction = text.partition(".")
    if not point or len(whole) < 7 or "e" in fraction:
        return text
    mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0").rstrip(".")
    return f"{mantissa}e+{len(whole) - 1:02}"


def text(registry: Registry) -> bytes:
    """Return all series in Prometheus' text format 0.0.4."""
    lines: list[str] = []
    for family in registry.families:
        kind = "gauge" if family.kind == "info" else family.kind
        lines.append(f"# HELP {family.name} {_escaped(family.help)}\n# TYPE {family.name} {kind}\n")
        lines.extend(_samples(family))
    return "".join(lines).encode()


def open_metrics(registry: Registry) -> bytes:
    """Return all series in OpenMetrics 1.0."""
    lines: list[str] = []
    for family in registry.families:
        name = family.base
        lines.append(f"# TYPE {name} {family.kind}\n")
        unit = name.rpartition("_")[2]
        if unit in _UNITS:
            lines.append(f"# UNIT {name} {unit}\n")
        lines.append(f"# HELP {name} {_quoted(family.help)}\n")
        lines.extend(_samples(family))
    lines.append("# EOF\n")
    return "".join(lines).encode()


def _samples(family: Family[Any]) -> Iterator[str]:
    templates = family.templates
    for values, series in family.series().items():
        template = templates.get(values)
        if template is None:
            template = templates[values] = _template(family, values, series)
        if isinstance(series, Histogram):
            totals = tuple(accumulate(series.counts))
            yield template % (*totals, number(series.sum), totals[-1])
        else:
            yield template % number(series.value)


def _template(family: Family[Any], values: Labels, series: object) -> str:
    """Return a series' lines with a `%s` for each of its numbers."""
    named = zip(family.label_names, values, strict=True)
    pairs = [f'{label}="{_quoted(value)}"'.replace("%", "%%") for label, value in named]
    name, labels = family.name, "{" + ",".join(pairs) + "}" if pairs else ""
    if not isinstance(series, Histogram):
        return f"{name}{labels} %s\n"
    bounds = (*map(bound, series.bounds), "+Inf")
    begun = f"{name}_bucket{{" + "".join(f"{pair}," for pair in pairs)
    buckets = "".join(f'{begun}le="{upper}"}} %s\n' for upper in bounds)
    return f"{buckets}{name}_sum{labels} %s\n{name}_count{labels} %s\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
