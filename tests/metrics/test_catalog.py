"""The catalog: every name that was promised, and none that can't be bounded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from taskd.config import Settings
from taskd.metrics.catalog import KINDS, Catalog, Kinds, docs_page
from taskd.metrics.expose import open_metrics, text
from taskd.metrics.registry import Family, Registry

ROOT = Path(__file__).resolve().parent.parent.parent

PROMISED = {
    "taskd_tasks": ("gauge", "status"),
    "taskd_tasks_created_total": ("counter", "kind"),
    "taskd_tasks_finished_total": ("counter", "kind", "outcome"),
    "taskd_task_processing_seconds": ("histogram", "kind"),
    "taskd_task_wait_seconds": ("histogram", "kind"),
    "taskd_queue_oldest_ready_seconds": ("gauge",),
    "taskd_workers_busy": ("gauge",),
    "taskd_workers_slots": ("gauge",),
    "taskd_tasks_rescued_total": ("counter",),
    "taskd_results_refused_total": ("counter",),
    "taskd_websocket_connections": ("gauge",),
    "taskd_websocket_events_sent_total": ("counter",),
    "taskd_websocket_closed_total": ("counter", "reason"),
    "taskd_event_delivery_seconds": ("histogram",),
    "taskd_cache_requests_total": ("counter", "cache", "result"),
    "taskd_cache_entries": ("gauge", "cache"),
    "taskd_cache_evictions_total": ("counter", "cache", "reason"),
    "taskd_cache_up": ("gauge",),
    "taskd_auth_refused_total": ("counter", "reason"),
    "taskd_http_requests_total": ("counter", "method", "route", "status"),
    "taskd_http_request_seconds": ("histogram", "method", "route"),
    "taskd_grpc_requests_total": ("counter", "method", "code"),
    "taskd_grpc_request_seconds": ("histogram", "method"),
    "taskd_database_up": ("gauge",),
    "taskd_upstream_up": ("gauge",),
    "taskd_event_log_behind_seconds": ("gauge",),
    "taskd_database_pool_connections": ("gauge", "state"),
    "taskd_database_query_seconds": ("histogram", "query"),
    "taskd_event_loop_lag_seconds": ("histogram",),
    "taskd_build_info": ("info", "version", "python"),
    "process_cpu_seconds_total": ("counter",),
    "process_start_time_seconds": ("gauge",),
    "process_virtual_memory_bytes": ("gauge",),
    "process_resident_memory_bytes": ("gauge",),
    "process_open_fds": ("gauge",),
    "process_max_fds": ("gauge",),
}


def filled() -> Catalog:
    """Return a catalog in which every family has a series."""
    catalog = Catalog()
    catalog.tasks.track_all(lambda: {("new",): 1, ("done",): 2})
    catalog.oldest_ready.track(lambda: 0.5)
    for family in (catalog.cache_up, catalog.database_up, catalog.upstream_up, catalog.log_behind):
        family.track(lambda: 1)
    for family in catalog.registry.families:
        if not family.series():
            family.expect(*("a" for _ in family.label_names))
    return catalog


def shown(family: Family[object]) -> set[tuple[str, ...]]:
    return set(family.series())


def test_every_name_is_there_with_its_type_and_labels() -> None:
    families = Catalog().registry.families
    assert {family.name: (family.kind, *family.label_names) for family in families} == PROMISED


def test_every_family_is_exposed() -> None:
    registry = filled().registry
    assert {family.name for family in read_text(text(registry).decode())} == {
        name.removesuffix("_total") for name in PROMISED
    }
    found = {family.name: family.unit for family in read_open(open_metrics(registry).decode())}
    assert set(found) == {name.removesuffix("_total").removesuffix("_info") for name in PROMISED}
    for name, unit in found.items():
        assert unit == (name.rpartition("_")[2] if name.endswith(("_seconds", "_bytes")) else "")


def test_promtool_has_no_complaint() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; Debian has it in the package prometheus")
    found = subprocess.run([promtool, "check", "metrics"], input=text(filled().registry), capture_output=True)
    assert (found.stdout, found.stderr, found.returncode) == (b"", b"", 0)


def test_the_page_is_printed_from_the_catalog() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert page == docs_page(), "python -m taskd.metrics.catalog > docs/metrics.md"
    for name in PROMISED:
        assert f"| `{name}` |" in page


def test_the_command_prints_the_page() -> None:
    command = [sys.executable, "-m", "taskd.metrics.catalog"]
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout == docs_page()


def test_the_times_of_tasks_have_the_buckets_that_are_set_and_all_others_the_default() -> None:
    for catalog, bounds in ((Catalog(), Settings().metrics_buckets), (Catalog(buckets=(1, 2.5)), (1, 2.5))):
        found = [family for family in catalog.registry.families if family.kind == "histogram"]
        for family in found:
            of_tasks = family in (catalog.processing, catalog.wait)
            wanted = bounds if of_tasks else Settings().metrics_buckets
            assert family.labels(*family.label_names).bounds == wanted
        assert len(found) == 7


def test_what_has_happened_to_nobody_yet_is_shown_as_0() -> None:
    catalog = Catalog()
    assert shown(catalog.cache_requests) == {
        (cache, result) for cache in ("task", "list") for result in ("hit", "miss", "coalesced")
    }
    plain = (catalog.rescued, catalog.refused, catalog.events_sent, catalog.sockets, catalog.workers_busy)
    for family in (*plain, catalog.workers_slots, catalog.delivery, catalog.loop_lag):
        assert shown(family) == {()}


def test_what_is_not_known_is_not_shown() -> None:
    catalog = Catalog()
    for family in (catalog.tasks, catalog.oldest_ready, catalog.cache_up, catalog.cache_entries):
        assert not shown(family)


def test_a_kind_with_a_handler_is_shown_before_any_task_of_it() -> None:
    catalog = Catalog()
    catalog.kinds.register(["echo", "echo"])
    for family in (catalog.created, catalog.processing, catalog.wait):
        assert shown(family) == {("echo",)}
    assert shown(catalog.finished) == {("echo", "done"), ("echo", "failed"), ("echo", "cancelled")}


def test_kinds_are_bounded_together_over_all_families() -> None:
    catalog = Catalog()
    for number in range(150):
        catalog.created.labels(f"k{number}").inc()
        catalog.finished.labels(f"k{number}", "done").inc()
    names = {f"k{number}" for number in range(KINDS)} | {"other"}
    assert shown(catalog.created) == {(name,) for name in names}
    assert shown(catalog.finished) == {(name, "done") for name in names}
    assert catalog.created.labels("other").value == catalog.finished.labels("other", "done").value == 50


def test_a_kind_that_is_registered_takes_no_place_of_others() -> None:
    told: list[str] = []
    kinds = Kinds(told.append, most=2)
    assert [kinds.fold(kind) for kind in "abc"] == ["a", "b", "other"]
    kinds.register("ac")
    kinds.register("c")
    assert [kinds.fold(kind) for kind in "abcde"] == ["a", "b", "c", "d", "other"]
    assert told == ["a", "c"]


@given(st.lists(st.sampled_from("abcdef") | st.sets(st.sampled_from("abcdef"), max_size=2)), st.integers(0, 3))
def test_a_kind_is_shown_as_itself_or_as_other_and_few_are(steps: list[str | set[str]], most: int) -> None:
    kinds, registered, named = Kinds(most=most), set[str](), set[str]()
    for step in steps:
        if isinstance(step, set):
            kinds.register(step)
            registered |= step
        else:
            found = kinds.fold(step)
            assert found in (step, "other")
            assert found == step or (step not in registered and step not in named)
            named |= {found} - {"other"}
    assert len(named - registered) <= most


def test_each_has_its_own() -> None:
    one, other = Catalog(), Catalog()
    one.created.labels("a").inc()
    assert not shown(other.created)
    assert isinstance(one.registry, Registry)


def test_uptime_is_of_the_clock() -> None:
    now = [5.0]
    catalog = Catalog(clock=lambda: now[0])
    now[0] = 7.5
    assert catalog.uptime == 2.5


def test_the_build_is_told() -> None:
    ((version, python),) = shown(next(f for f in Catalog("1.2.3").registry.families if f.name == "taskd_build_info"))
    assert (version, python) == ("1.2.3", ".".join(map(str, sys.version_info[:3])))
