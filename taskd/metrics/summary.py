"""The metrics as people and scripts read them: few numbers, added up, as values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from taskd.domain.model import Status
from taskd.metrics.catalog import Catalog
from taskd.metrics.registry import Counter, Family, Gauge, Labels


def summary(catalog: Catalog) -> dict[str, Any]:
    """Return the JSON form of `GET /metrics`; what is not known is None, but numbers of tasks are 0."""
    tasks = _values(catalog.tasks)
    counts = {status.value: tasks.get((status.value,), 0) for status in Status}
    return {
        "tasks": {**counts, "total": sum(counts.values())},
        "average_processing_seconds": _known(catalog.average_processing()),
        "websocket_connections": _one(catalog.sockets, 0),
        "cache": _cache(catalog),
        "queue": {
            "ready": counts[Status.NEW],
            "running": counts[Status.RUNNING],
            "oldest_ready_seconds": _one(catalog.oldest_ready, 0),
        },
        "workers": {"busy": _one(catalog.workers_busy, 0), "slots": _one(catalog.workers_slots, 0)},
        "uptime_seconds": round(catalog.uptime, 3),
        "version": catalog.version,
    }


def _cache(catalog: Catalog) -> dict[str, Any]:
    requests = _values(catalog.cache_requests)
    hits, misses, coalesced = (
        sum(number for (_, told), number in requests.items() if told == result)
        for result in ("hit", "miss", "coalesced")
    )
    reads = hits + misses + coalesced
    entries = _values(catalog.cache_entries)
    up = _one(catalog.cache_up, None)
    return {
        "hits": hits,
        "misses": misses,
        "coalesced": coalesced,
        "hit_ratio": hits / reads if reads else None,
        "entries": sum(entries.values()) if entries else None,
        "up": None if up is None else bool(up),
    }


def _values(family: Family[Counter] | Family[Gauge]) -> Mapping[Labels, float]:
    """Return a family's numbers that are known, by label values."""
    found = {values: _known(series.value) for values, series in family.series().items()}
    return {values: number for values, number in found.items() if number is not None}


def _one(family: Family[Gauge], unknown: float | None) -> float | None:
    """Return the number of a family without labels."""
    return _values(family).get((), unknown)


def _known(value: float | None) -> float | None:
    """Return the number, a whole one as an integer; None for what JSON has no number for."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value
