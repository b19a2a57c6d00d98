"""What counting costs: an observation, a request, a scrape.

    python -m bench.metrics

The promises: less than a microsecond for an observation on a bound series, less than 5 ms for a scrape of everything
with as many kinds as are ever shown. Times are the processor's, so that what else runs counts as little as may be.
"""

from __future__ import annotations

import gzip
import time
import timeit
from collections.abc import Callable, Sequence

from taskd.domain.codec import dump_json
from taskd.http1.head import parse_head
from taskd.http1.limits import Limits
from taskd.metrics.catalog import KINDS, Catalog
from taskd.metrics.expose import open_metrics, text
from taskd.metrics.summary import summary
from taskd.web.application import description
from taskd.web.message import Request, Response
from taskd.web.middleware import Measure

OUTCOMES = ("done", "failed", "cancelled")
STATEMENTS = 40
REQUESTS = 20_000


def seconds_of(work: Callable[[], object], number: int, repeat: int = 7) -> float:
    """Return the seconds of one call, the best of some rounds."""
    return min(timeit.repeat(work, timer=time.process_time, number=number, repeat=repeat)) / number


def full(kinds: int = KINDS) -> Catalog:
    """Return a catalog in which everything that is bounded is at its bound."""
    catalog = Catalog()
    for number in range(kinds + 1):
        kind = f"kind-number-{number:03}"
        catalog.created.labels(kind).inc(number * 37)
        for outcome in OUTCOMES:
            catalog.finished.labels(kind, outcome).inc(number * 11)
        for family in (catalog.processing, catalog.wait):
            for step in range(50):
                family.labels(kind).observe(0.0137 * step)
    for path, operations in description()["paths"].items():
        for method in operations:
            catalog.http_seconds.labels(method.upper(), path).observe(0.0123)
            for status in ("200", "404", "422"):
                catalog.http_requests.labels(method.upper(), path, status).inc()
    for number in range(STATEMENTS):
        catalog.query_seconds.labels(f"statement_{number}").observe(0.0031)
    return catalog


def hot() -> Sequence[tuple[str, float]]:
    """Return what is done often, and its nanoseconds; the call of it from Python included."""
    catalog = Catalog()
    created, lag = catalog.created.labels("a"), catalog.loop_lag.labels()
    measure, answer = Measure(catalog), Response(204)
    request = Request(parse_head(b"GET /tasks HTTP/1.1\r\nHost: a\r\n\r\n", Limits()))
    request.route = "/tasks"
    return [
        ("increment, bound", seconds_of(created.inc, 200_000) * 1e9),
        ("observation, bound", seconds_of(lambda: lag.observe(0.3), 200_000) * 1e9),
        ("labels of a known series", seconds_of(lambda: catalog.created.labels("a"), 200_000) * 1e9),
        ("what a request pays", seconds_of(lambda: measure.note(request, answer), 200_000) * 1e9),
    ]


def main() -> None:
    """Measure, and print a table of each."""
    for name, nanoseconds in hot():
        print(f"{name:30} {nanoseconds:8.0f} ns")
    catalog = full()
    forms: Sequence[tuple[str, Callable[[], bytes]]] = [
        ("text 0.0.4", lambda: text(catalog.registry)),
        ("OpenMetrics 1.0", lambda: open_metrics(catalog.registry)),
        ("JSON", lambda: dump_json(summary(catalog)).encode()),
    ]
    for name, write in forms:
        body = write()
        packed = len(gzip.compress(body, 5))
        print(f"{name:30} {seconds_of(write, 20) * 1e3:8.2f} ms {len(body):9} bytes, {packed} as gzip")


if __name__ == "__main__":
    main()
