"""Both text formats: as they are written, and as Prometheus' own client reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as open_parser

from taskd.metrics.expose import bound, number, open_metrics, text
from taskd.metrics.registry import Registry

Read = Callable[[Registry], list[Any]]
Sample = tuple[str, tuple[tuple[str, str], ...], str]


def read_text(registry: Registry) -> list[Any]:
    return list(text_parser.text_string_to_metric_families(text(registry).decode()))


def read_open(registry: Registry) -> list[Any]:
    return list(open_parser.text_string_to_metric_families(open_metrics(registry).decode()))


READERS = pytest.mark.parametrize("read", [read_text, read_open])
WORDS = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
NUMBERS = st.floats() | st.integers(-(2**70), 2**70)


def sample(name: str, value: float, **labels: str) -> Sample:
    """Return a sample so that equal ones are equal: NaN too, and both zeros."""
    return name, tuple(sorted(labels.items())), repr(float(value) + 0.0)


def samples(families: Iterable[Any]) -> list[Sample]:
    return [sample(one.name, one.value, **one.labels) for family in families for one in family.samples]


def readable(word: str) -> str:
    return word.encode("utf-8", "backslashreplace").decode()


def small() -> Registry:
    registry = Registry()
    registry.counter("jobs_total", 'Jobs \\ of "all".', "kind").labels('a"\\\n%d').inc(3)
    registry.gauge("heat", "Two\nlines.").labels().set(-0.5)
    registry.histogram("wait_seconds", "Waits.", buckets=[0.25, 1, 2_500_000]).labels().observe(0.5, 2)
    registry.info("build_info", "Build.", version="1")
    return registry


def test_the_text_format() -> None:
    assert text(small()).decode() == (
        '# HELP jobs_total Jobs \\\\ of "all".\n# TYPE jobs_total counter\njobs_total{kind="a\\"\\\\\\n%d"} 3\n'
        "# HELP heat Two\\nlines.\n# TYPE heat gauge\nheat -0.5\n"
        '# HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\nwait_seconds_bucket{le="0.25"} 0\n'
        'wait_seconds_bucket{le="1.0"} 2\nwait_seconds_bucket{le="2.5e+06"} 2\nwait_seconds_bucket{le="+Inf"} 2\n'
        "wait_seconds_sum 1\nwait_seconds_count 2\n"
        '# HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version="1"} 1\n'
    )


def test_open_metrics() -> None:
    assert open_metrics(small()).decode() == (
        '# TYPE jobs counter\n# HELP jobs Jobs \\\\ of \\"all\\".\njobs_total{kind="a\\"\\\\\\n%d"} 3\n'
        "# TYPE heat gauge\n# HELP heat Two\\nlines.\nheat -0.5\n"
        "# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n# HELP wait_seconds Waits.\n"
        'wait_seconds_bucket{le="0.25"} 0\nwait_seconds_bucket{le="1.0"} 2\nwait_seconds_bucket{le="2.5e+06"} 2\n'
        'wait_seconds_bucket{le="+Inf"} 2\nwait_seconds_sum 1\nwait_seconds_count 2\n'
        '# TYPE build info\n# HELP build Build.\nbuild_info{version="1"} 1\n'
        "# EOF\n"
    )


@READERS
def test_types_help_and_units_are_read_back(read: Read) -> None:
    told = {family.name: (family.type, family.documentation) for family in read(small())}
    assert told["jobs"] == ("counter", 'Jobs \\ of "all".')
    assert told["heat"] == ("gauge", "Two\nlines.")
    assert told["wait_seconds"] == ("histogram", "Waits.")
    assert told["build" if read is read_open else "build_info"][0] == ("info" if read is read_open else "gauge")
    assert {family.unit for family in read_open(small())} == {"", "seconds"}


@READERS
@given(gauges=st.dictionaries(st.tuples(WORDS, WORDS), NUMBERS, max_size=8))
def test_any_labels_and_numbers_are_read_back(read: Read, gauges: dict[tuple[str, str], float]) -> None:
    registry = Registry()
    family = registry.gauge("heat", "Heat.", "one", "two")
    expected = {}
    for (one, two), value in gauges.items():
        family.labels(one, two).set(value)
        expected[readable(one), readable(two)] = value
    found = samples(read(registry))
    assert sorted(found) == sorted(sample("heat", value, one=one, two=two) for (one, two), value in expected.items())


@READERS
@given(counts=st.dictionaries(WORDS, st.lists(st.floats(0, 1e300) | st.integers(0, 2**70)), max_size=5))
def test_counters_are_read_back(read: Read, counts: dict[str, list[float]]) -> None:
    registry = Registry()
    family = registry.counter("jobs_total", "Jobs.", "kind")
    expected: dict[str, float] = {}
    for kind, steps in counts.items():
        for step in steps:
            family.labels(kind).inc(step)
            expected[readable(kind)] = expected.get(readable(kind), 0) + step
    assert sorted(samples(read(registry))) == sorted(sample("jobs_total", n, kind=kind) for kind, n in expected.items())


@READERS
@given(
    bounds=st.lists(st.floats(0, exclude_min=True, allow_infinity=False), min_size=1, max_size=8, unique=True),
    values=st.lists(st.floats(0)),
)
def test_histograms_are_read_back(read: Read, bounds: list[float], values: list[float]) -> None:
    registry, bounds = Registry(), sorted(bounds)
    series = registry.histogram("wait_seconds", "Waits.", "kind", buckets=bounds).labels("k")
    for value in values:
        series.observe(value)
    (family,) = read(registry)
    *buckets, total, count = family.samples
    assert [float(one.labels["le"]) for one in buckets] == [*bounds, math.inf]
    assert [one.value for one in buckets] == [sum(value <= upper for value in values) for upper in [*bounds, math.inf]]
    assert (count.value, float(total.value)) == (len(values), [0.0, *accumulate(values)][-1])
    assert {one.labels["kind"] for one in family.samples} == {"k"}


@READERS
@given(words=st.text(st.characters(codec="utf-8")).map(str.strip).filter(lambda words: "\n" not in words))
def test_any_help_is_read_back(read: Read, words: str) -> None:
    registry = Registry()
    registry.counter("jobs_total", f"Jobs\n{words}.")
    (family,) = read(registry)
    assert family.documentation == f"Jobs\n{words}."


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.0, "0"),
        (1.0, "1"),
        (True, "1"),
        (0.1, "0.1"),
        (1e-9, "1e-09"),
        (-2, "-2"),
        (2**53 - 1, "9007199254740991"),
        (1e300, "1e+300"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    # OpenMetrics 1.0, "Canonical Numbers".
    [
        (1, "1.0"),
        (0.005, "0.005"),
        (10, "10.0"),
        (1e-5, "1e-05"),
        (123456, "123456.0"),
        (1e6, "1e+06"),
        (1e9, "1e+09"),
        (1e10, "1e+10"),
        (1234567.5, "1.2345675e+06"),
        (1e16, "1e+16"),
    ],
)
def test_bounds_are_canonical(value: float, written: str) -> None:
    assert bound(value) == written


def test_a_series_that_comes_later_is_shown() -> None:
    registry = Registry()
    family = registry.counter("jobs_total", "Jobs.", "kind")
    assert b"jobs_total{" not in text(registry)
    for kind in ("a", "b", "a"):
        family.labels(kind).inc()
        assert f'jobs_total{{kind="{kind}"}}'.encode() in text(registry)
    assert b'jobs_total{kind="a"} 2\n' in text(registry)
