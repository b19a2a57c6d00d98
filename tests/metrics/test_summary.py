"""The JSON form: few numbers, added up."""

from __future__ import annotations

import json
import math

import pytest

from taskd.domain.model import Status
from taskd.metrics.catalog import Catalog
from taskd.metrics.summary import summary


def test_before_anything_is_known() -> None:
    found = summary(Catalog("1.2.3", clock=lambda: 0.0))
    assert found == {
        "tasks": {**{status.value: 0 for status in Status}, "total": 0},
        "average_processing_seconds": None,
        "websocket_connections": 0,
        "cache": {"hits": 0, "misses": 0, "coalesced": 0, "hit_ratio": None, "entries": None, "up": None},
        "queue": {"ready": 0, "running": 0, "oldest_ready_seconds": 0},
        "workers": {"busy": 0, "slots": 0},
        "uptime_seconds": 0,
        "version": "1.2.3",
    }


def test_what_happened_is_added_up() -> None:
    now = [10.0]
    catalog = Catalog("1", clock=lambda: now[0])
    catalog.tasks.track_all(lambda: {("new",): 3, ("running",): 2, ("done",): 2**60})
    catalog.average_processing = lambda: 0.25
    catalog.sockets.track(lambda: 4)
    for cache, result, count in (("task", "hit", 5), ("list", "hit", 1), ("list", "miss", 3), ("task", "coalesced", 3)):
        catalog.cache_requests.labels(cache, result).inc(count)
    catalog.cache_entries.track_all(lambda: {("task",): 7, ("list",): 1})
    catalog.cache_up.track(lambda: True)
    catalog.oldest_ready.track(lambda: 1.5)
    catalog.workers_busy.labels().set(2.0)
    catalog.workers_slots.track(lambda: 16)
    now[0] = 12.5
    assert json.loads(json.dumps(summary(catalog), allow_nan=False)) == {
        "tasks": {
            "scheduled": 0, "new": 3, "running": 2, "done": 2**60, "failed": 0, "cancelled": 0, "total": 2**60 + 5
        },
        "average_processing_seconds": 0.25,
        "websocket_connections": 4,
        "cache": {"hits": 6, "misses": 3, "coalesced": 3, "hit_ratio": 0.5, "entries": 8, "up": True},
        "queue": {"ready": 3, "running": 2, "oldest_ready_seconds": 1.5},
        "workers": {"busy": 2, "slots": 16},
        "uptime_seconds": 2.5,
        "version": "1",
    }  # fmt: skip


def test_whole_numbers_are_integers() -> None:
    catalog = Catalog()
    catalog.workers_busy.labels().set(2.0)
    assert repr(summary(catalog)["workers"]) == "{'busy': 2, 'slots': 0}"


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_what_json_has_no_number_for_is_not_known(unknown: float) -> None:
    catalog = Catalog()
    catalog.average_processing = lambda: unknown
    catalog.cache_entries.track(lambda: unknown, "task")
    found = summary(catalog)
    assert (found["average_processing_seconds"], found["cache"]["entries"]) == (None, None)


@pytest.mark.parametrize("up", [True, False])
def test_a_cache_that_is_away_is_told(up: bool) -> None:
    catalog = Catalog()
    catalog.cache_up.track(lambda: int(up))
    assert summary(catalog)["cache"]["up"] is up
