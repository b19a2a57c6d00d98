"""Counters, gauges and histograms of one process.

A family is a name with labels; a series is one of its combinations of label values. Series are bound once, by
`Family.labels`, where their values are known; what runs often holds the series and pays an addition, or for a histogram
a search in its bounds. What is counted anyway, as a plain number of the part it belongs to, is `tracked`: read when it
is shown, and free until then.

A series that is first shown with 1 looks to PromQL's `rate` as if nothing had happened. So what has no labels is shown
at 0 from the start, and so is what is `expected`: label values from a closed set.

Nothing here is global: each `Taskd` has its own registry, so that two in one event loop don't add up.

Considered and refused: exemplars, `_created`, quantiles in the process (they can't be added up over processes), and
locks: all of it is touched by one event loop only.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram", "info"]
Labels = tuple[str, ...]
Fold = Callable[[str], str]

_NAME = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
# The names of a family's samples, and OpenMetrics' name of the family itself: two families must not share any.
_SUFFIXES: Mapping[Kind, Sequence[str]] = {
    "counter": ("", "_total"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count"),
    "info": ("", "_info"),
}


class Counter:
    """Grows only, from 0 at the start of the process."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        """Add `by`, which is not negative."""
        self.value += by


class Gauge:
    """Goes up and down."""

    __slots__ = ("value",)

    def __init__(self, value: float = 0) -> None:
        self.value = value

    def set(self, value: float) -> None:
        """Put another value in its place."""
        self.value = value


class Tracked:
    """Shows a number that is kept elsewhere. `read` is called at each exposition: it must be quick and never fail."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    @property
    def value(self) -> float:
        """What `read` returns now."""
        return self._read()


class Histogram:
    """Counts observations by size. A bucket holds what is not above its bound (Prometheus: `le`)."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations of each bucket alone, the last for what is above all bounds."""
        self.sum: float = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times. A clock that went back, or a time that is none, counts as no time at all."""
        if not value >= 0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)


S = TypeVar("S", Counter, Gauge, Histogram)
L = TypeVar("L", bound=Labels)


class Family(Generic[S]):
    """One name: its type, its help, its labels, its series.

    Args:
        name: with the unit, and `_total` for a counter, as it is asked for in a query.
        help: one sentence.
        kind: how it behaves.
        label_names: in the order in which `labels` takes their values.
        make: makes a series.
        fold: for a label whose values are not a closed set: what stands for a value beyond the bound.

    Raises:
        ValueError: a name is none, or is reserved.
    """

    def __init__(
        self,
        name: str,
        help: str,
        kind: Kind,
        label_names: Labels,
        make: Callable[[], S],
        fold: Mapping[str, Fold] | None = None,
    ) -> None:
        # Prometheus, "Data model": `le` is the histogram's own, names that begin with `__` are Prometheus'.
        if not all(map(_NAME.fullmatch, (name, *label_names))) or any(label.startswith("__") for label in label_names):
            raise ValueError(f"{name} with {label_names} is no name of a metric and its labels")
        if len(set(label_names)) < len(label_names) or (kind == "histogram" and "le" in label_names):
            raise ValueError(f"the labels {label_names} of {name} are not its own")
        self.name = name
        self.help = help
        self.kind = kind
        self.label_names = label_names
        self.templates: dict[Labels, str] = {}
        """How the exposition writes each series, but for the numbers; kept there, so that it is made once."""
        self._make: Callable[[], S] = make
        self._folds = [(label_names.index(label), function) for label, function in (fold or {}).items()]
        self._series: dict[Labels, S | Tracked] = {}
        self._untouched: set[Labels] = set()
        self._groups: list[Callable[[], Mapping[Any, float]]] = []

    @property
    def base(self) -> str:
        """The name without the suffix of its type, as OpenMetrics names a family."""
        suffix = _SUFFIXES[self.kind][1] if self.kind in ("counter", "info") else ""
        return self.name.removesuffix(suffix)

    @property
    def sample_names(self) -> frozenset[str]:
        """The names that no other family may use."""
        return frozenset(self.base + suffix for suffix in _SUFFIXES[self.kind])

    def labels(self, *values: str) -> S:
        """Return the series of these label values, at 0 when it is new.

        Raises:
            ValueError: there are more or fewer labels, or the series is tracked.
        """
        found = self._series.get(values)
        if found is None:
            values = self._bound(values)
            found = self._series.get(values)
            if found is None:
                found = self._series[values] = self._make()
        if isinstance(found, Tracked):
            raise ValueError(f"{self.name}{values} is tracked")
        self._untouched.discard(values)
        return found

    def expect(self, *values: str) -> None:
        """Show the series of these label values at 0 until something happens.

        Raises:
            ValueError: there are more or fewer labels.
        """
        values = self._bound(values)
        if values not in self._series:
            self._series[values] = self._make()
            self._untouched.add(values)

    def track(self, read: Callable[[], float], *values: str) -> None:
        """Show what `read` returns as the series of these label values.

        Raises:
            ValueError: there are more or fewer labels, or the series is counted already.
        """
        values = self._bound(values)
        found = self._series.get(values)
        if found is not None and not isinstance(found, Tracked) and values not in self._untouched:
            raise ValueError(f"{self.name}{values} is counted already")
        self._untouched.discard(values)
        self._series[values] = Tracked(read)

    def track_all(self, read: Callable[[], Mapping[L, float]]) -> None:
        """Show what `read` returns, by label values, besides the other series; the values are a small, closed set."""
        self._groups.append(read)

    def series(self) -> Mapping[Labels, S | Tracked | Gauge]:
        """Return each series by its label values."""
        if not self._groups:
            return self._series
        found: dict[Labels, S | Tracked | Gauge] = {**self._series}
        for read in self._groups:
            found.update((self._bound(values), Gauge(number)) for values, number in read().items())
        return found

    def _bound(self, values: Labels) -> Labels:
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
        found = [*values]
        for place, fold in self._folds:
            found[place] = fold(found[place])
        return tuple(map(_encodable, found))


def _encodable(value: str) -> str:
    """Return the value, with lone surrogates written out: one of them would make the whole exposition impossible."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


class Registry:
    """The families of one process, in the order in which they were added."""

    def __init__(self) -> None:
        self._families: list[Family[Any]] = []
        self._taken: set[str] = set()

    @property
    def families(self) -> Sequence[Family[Any]]:
        """All families."""
        return tuple(self._families)

    def counter(self, name: str, help: str, *labels: str, fold: Mapping[str, Fold] | None = None) -> Family[Counter]:
        """Add a counter; its name ends in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"a counter's name ends in _total, unlike {name}")
        family = self._add(Family(name, help, "counter", labels, Counter, fold))
        if not labels:
            family.expect()
        return family

    def gauge(self, name: str, help: str, *labels: str) -> Family[Gauge]:
        """Add a gauge. It is shown once it is set: until then, 0 might be wrong; where 0 is right, `expect` it."""
        return self._add(Family(name, help, "gauge", labels, Gauge))

    def info(self, name: str, help: str, **labels: str) -> Family[Gauge]:
        """Add a family whose one series is always 1 and tells by its labels; its name ends in `_info`."""
        if not name.endswith("_info"):
            raise ValueError(f"an info's name ends in _info, unlike {name}")
        family = self._add(Family(name, help, "info", tuple(labels), Gauge))
        family.labels(*labels.values()).set(1)
        return family

    def histogram(
        self, name: str, help: str, *labels: str, buckets: Iterable[float], fold: Mapping[str, Fold] | None = None
    ) -> Family[Histogram]:
        """Add a histogram. `buckets` are upper bounds, at least one, that grow, without the infinite one."""
        bounds = tuple(map(float, buckets))
        if not bounds or not all(low < high for low, high in pairwise((0.0, *bounds, float("inf")))):
            raise ValueError("the bounds of buckets must be above 0, finite, and grow")
        family = self._add(Family(name, help, "histogram", labels, lambda: Histogram(bounds), fold))
        if not labels:
            family.expect()
        return family

    def _add(self, family: Family[S]) -> Family[S]:
        if not self._taken.isdisjoint(family.sample_names):
            raise ValueError(f"{family.name} has names of another family")
        self._taken |= family.sample_names
        self._families.append(family)
        return family
