"""Counters, gauges and histograms: what is counted, and what is refused."""

from __future__ import annotations

import math

import pytest

from taskd.metrics.registry import Counter, Gauge, Histogram, Registry

ODD = "\udcff"


def shown(family: object) -> dict[tuple[str, ...], float]:
    """Return a family's numbers by label values."""
    return {values: series.value for values, series in family.series().items()}  # type: ignore[attr-defined]


def test_a_counter_counts_and_whole_numbers_stay_whole() -> None:
    counter = Counter()
    counter.inc()
    counter.inc(2)
    assert repr(counter.value) == "3"


def test_a_bucket_holds_what_is_not_above_its_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.1000001, 1.0, 1.5, math.inf):
        histogram.observe(value)
    assert (histogram.counts, histogram.count, histogram.sum) == ([2, 2, 2], 6, math.inf)


def test_a_value_may_be_counted_many_times_at_once() -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(0.5, 3)
    assert (histogram.counts, histogram.sum) == ([0, 3, 0], 1.5)


@pytest.mark.parametrize("value", [-1.0, -math.inf, math.nan])
def test_a_time_that_is_none_is_no_time_at_all(value: float) -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([1, 0, 0], 0.0)


def test_the_same_labels_are_the_same_series() -> None:
    family = Registry().counter("a_total", "A.", "x", "y")
    family.labels("1", "2").inc()
    family.labels("1", "2").inc()
    family.labels("2", "1").inc()
    assert shown(family) == {("1", "2"): 2, ("2", "1"): 1}


@pytest.mark.parametrize("values", [(), ("1",), ("1", "2", "3")])
def test_a_series_has_all_its_labels(values: tuple[str, ...]) -> None:
    family = Registry().gauge("a", "A.", "x", "y")
    for use in (family.labels, family.expect, lambda *values: family.track(lambda: 0, *values)):
        with pytest.raises(ValueError, match="has the labels"):
            use(*values)


def test_values_that_are_folded_to_the_same_share_a_series() -> None:
    family = Registry().counter("a_total", "A.", "x", "y", fold={"y": lambda value: value[:1]})
    family.labels("long", "one").inc()
    family.labels("long", "other").inc()
    assert shown(family) == {("long", "o"): 2}


def test_text_that_cannot_be_sent_is_written_out() -> None:
    family = Registry().counter("a_total", "A.", "x")
    family.labels(ODD).inc()
    family.labels("\\udcff").inc()
    family.labels("я").inc()
    family.track_all(lambda: {(ODD * 2,): 5})
    assert shown(family) == {("\\udcff",): 2, ("я",): 1, ("\\udcff\\udcff",): 5}


def test_counters_and_histograms_without_labels_are_shown_from_the_start_and_gauges_are_not() -> None:
    registry = Registry()
    assert shown(registry.counter("a_total", "A.")) == {(): 0}
    assert [series.count for series in registry.histogram("b", "B.", buckets=[1]).series().values()] == [0]
    assert shown(registry.gauge("c", "C.")) == {}
    assert shown(registry.counter("d_total", "D.", "x")) == {}


def test_what_is_expected_is_shown_and_then_counted() -> None:
    family = Registry().counter("a_total", "A.", "x")
    family.expect("1")
    assert shown(family) == {("1",): 0}
    family.labels("1").inc()
    family.expect("1")
    assert shown(family) == {("1",): 1}


def test_what_is_tracked_is_read_when_it_is_shown() -> None:
    family, numbers = Registry().gauge("a", "A.", "x"), {("all",): 1}
    family.expect("1")
    family.track(lambda: numbers["all",], "1")
    family.track_all(lambda: {("2",): numbers["all",] * 2})
    numbers["all",] = 7
    assert shown(family) == {("1",): 7, ("2",): 14}


def test_a_series_is_shown_once_though_a_group_has_it_too() -> None:
    family = Registry().counter("a_total", "A.", "x")
    family.expect("1")
    family.track_all(lambda: {("1",): 5})
    assert shown(family) == {("1",): 5}


def test_a_series_is_either_counted_or_tracked() -> None:
    family = Registry().counter("a_total", "A.", "x")
    family.labels("1").inc()
    with pytest.raises(ValueError, match="is counted already"):
        family.track(lambda: 0, "1")
    family.track(lambda: 0, "2")
    family.track(lambda: 1, "2")
    with pytest.raises(ValueError, match="is tracked"):
        family.labels("2")
    family.expect("3")
    family.labels("3")
    with pytest.raises(ValueError, match="is counted already"):
        family.track(lambda: 0, "3")


@pytest.mark.parametrize("name", ["", "1a", "a b", "é", "a:b", "a\n", "a-b"])
def test_a_name_is_of_letters_digits_and_underscores(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Registry().gauge(name, "A.")
    with pytest.raises(ValueError, match="no name"):
        Registry().gauge("a", "A.", name)


@pytest.mark.parametrize("labels", [("__x",), ("x", "x"), ("le",)])
def test_reserved_labels_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"name|own"):
        Registry().histogram("a", "A.", *labels, buckets=[1])


@pytest.mark.parametrize("buckets", [[], [1, 1], [2, 1], [0, 1], [-1], [1, math.inf], [math.nan], [1, math.nan]])
def test_buckets_grow(buckets: list[float]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        Registry().histogram("a", "A.", buckets=buckets)


def test_a_counter_and_an_info_are_named_as_such() -> None:
    with pytest.raises(ValueError, match="_total"):
        Registry().counter("a", "A.")
    with pytest.raises(ValueError, match="_info"):
        Registry().info("a", "A.", x="1")
    assert shown(Registry().info("a_info", "A.", x="1", y="2")) == {("1", "2"): 1}


@pytest.mark.parametrize("name", ["a", "a_total", "h", "h_count", "h_bucket", "i", "i_info"])
def test_no_two_families_share_a_name_in_any_format(name: str) -> None:
    registry = Registry()
    registry.counter("a_total", "A.")
    registry.histogram("h", "H.", buckets=[1])
    registry.info("i_info", "I.")
    with pytest.raises(ValueError, match="another family"):
        registry.gauge(name, "G.")
    assert len(registry.families) == 3


def test_nor_when_the_longer_name_comes_later() -> None:
    registry = Registry()
    registry.gauge("a", "A.")
    registry.gauge("h_count", "H.")
    with pytest.raises(ValueError, match="another family"):
        registry.counter("a_total", "A.")
    with pytest.raises(ValueError, match="another family"):
        registry.histogram("h", "H.", buckets=[1])


def test_a_gauge_is_set() -> None:
    gauge = Gauge()
    gauge.set(2)
    gauge.set(1.5)
    assert gauge.value == 1.5
