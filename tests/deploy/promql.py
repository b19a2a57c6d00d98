"""What queries speak of: the metrics and the labels in them, held against the catalog.

No parser of the language, which promtool is: names of metrics begin with `taskd_` or `process_` and are found as words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from taskd.domain.model import FINAL, Status
from taskd.metrics.catalog import Catalog

_SELECTOR = re.compile(r"(?<![\w:])((?:taskd|process)_(?!pb2)\w+)(?:\{([^}]*)\})?")
# A label alone is how documentation writes of a series.
_MATCHER = re.compile(r'\s*(\w+)\s*(?:(=~|!~|!=|=)\s*"([^"]*)"\s*)?(?:,|$)')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")

_OF_TARGETS = {"job", "instance"}
"""Labels that Prometheus adds."""

_SUFFIXES = ("_bucket", "_sum", "_count")

_VALUES = {
    ("taskd_tasks", "status"): {status.value for status in Status},
    ("taskd_tasks_finished_total", "outcome"): {status.value for status in FINAL},
    ("taskd_cache_requests_total", "result"): {"hit", "miss", "coalesced"},
    ("taskd_database_pool_connections", "state"): {"busy", "idle"},
    ("taskd_websocket_closed_total", "reason"): {"slow_consumer"},
}
"""Values of labels that queries may ask for."""

_CATALOG = Catalog()
FAMILIES = {family.name: family for family in _CATALOG.registry.families}


def names(query: str) -> set[str]:
    """Return the metrics of a query, histograms without their suffix."""
    return {family for name, _ in _SELECTOR.findall(query) if (family := _family(name)) is not None}


def faults(query: str) -> Iterator[str]:
    """Yield what a query asks for and taskd does not have."""
    known = set(_OF_TARGETS)
    for name, matchers in _SELECTOR.findall(query):
        family = _family(name)
        if family is None:
            yield f"there is no {name}"
            continue
        labels = {*FAMILIES[family].label_names, *({"le"} if name.endswith("_bucket") else ())}
        known |= labels
        for label, operator, value in _matchers(matchers):
            if label not in labels | _OF_TARGETS:
                yield f"{name} has no label {label}"
            allowed = _VALUES.get((family, label))
            asked = value.split("|") if operator in ("=~", "!~") else [value]
            if allowed and operator:
                yield from (f"{name} is never {label}={one!r}" for one in asked if one not in allowed)
    for grouping in _GROUPING.findall(query):
        for label in filter(None, (word.strip() for word in grouping.split(","))):
            if label not in known:
                yield f"nothing here has the label {label}"


def _matchers(text: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = _MATCHER.findall(text)
    if _MATCHER.sub("", text).strip():
        raise ValueError(f"not read: {text}")
    return found


def _family(name: str) -> str | None:
    """Return the family that has a series of this name."""
    if name in FAMILIES:
        return None if FAMILIES[name].kind == "histogram" else name
    for suffix in _SUFFIXES:
        family = name.removesuffix(suffix)
        if family != name and family in FAMILIES and FAMILIES[family].kind == "histogram":
            return family
    return None
