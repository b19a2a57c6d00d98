"""All metrics of taskd: each name once, with its type, labels and meaning.

Whoever counts something is handed the catalog and uses its family. docs/metrics.md is printed from here
(`python -m taskd.metrics.catalog > docs/metrics.md`).

Labels come from closed sets, so that the number of series is bounded: routes and methods from the router, statuses
and outcomes from the domain, statements from store/sql. Kinds are any word that a client sends: those with a handler
here are always shown by name, of the others the first hundred.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence

from taskd import __version__
from taskd.clock import Clock, monotonic
from taskd.config import Settings
from taskd.domain.model import FINAL
from taskd.metrics import process
from taskd.metrics.registry import Registry

KINDS = 100
"""Kinds without a handler here that get series of their own."""

OTHER = "other"
"""Stands for the values of a label beyond its bound."""

UNMATCHED = "unmatched"
"""The label `route` of requests that no route fits."""


class Kinds:
    """Bounds the label `kind`.

    Args:
        registered: called with each kind that is registered, once.
        most: how many others are shown by name.
    """

    def __init__(self, registered: Callable[[str], None] = lambda kind: None, most: int = KINDS) -> None:
        self._registered = registered
        self._most = most
        self._known: set[str] = set()
        self._others: set[str] = set()

    def register(self, kinds: Iterable[str]) -> None:
        """Show these by name, whatever else comes."""
        for kind in kinds:
            if kind not in self._known:
                self._known.add(kind)
                self._others.discard(kind)
                self._registered(kind)

    def fold(self, kind: str) -> str:
        """Return the kind, or `other` when it was never registered and too many such were seen before it."""
        if kind in self._known or kind in self._others:
            return kind
        if len(self._others) >= self._most:
            return OTHER
        self._others.add(kind)
        return kind


class Catalog:
    """The metrics of one process.

    Args:
        version: of taskd, for `taskd_build_info`.
        buckets: upper bounds of the histograms of tasks' times, in seconds, growing; None: the setting's default, which
            all other histograms have.
        clock: monotonic seconds.
    """

    def __init__(
        self, version: str = __version__, buckets: Sequence[float] | None = None, clock: Clock = monotonic
    ) -> None:
        self.version = version
        self._fixed = Settings().metrics_buckets
        self.buckets = self._fixed if buckets is None else tuple(buckets)
        self.registry = Registry()
        self.kinds = Kinds(self._expect_kind)
        self.average_processing: Callable[[], float | None] = lambda: None
        """Mean seconds of the attempts that any process ended since this one started; None before the first."""
        self._clock = clock
        self._begun = clock()
        self._declare_tasks()
        self._declare_queue()
        self._declare_sockets()
        self._declare_cache()
        self._declare_calls()
        self._declare_ground()
        self.registry.info(
            "taskd_build_info", "The version of taskd and of Python.", version=version, python=platform.python_version()
        )
        process.register(self.registry)

    @property
    def uptime(self) -> float:
        """Seconds since taskd started in this process."""
        return self._clock() - self._begun

    def _expect_kind(self, kind: str) -> None:
        self.created.expect(kind)
        self.processing.expect(kind)
        self.wait.expect(kind)
        for outcome in sorted(FINAL):
            self.finished.expect(kind, outcome.value)

    def _declare_tasks(self) -> None:
        add, fold, buckets = self.registry, {"kind": self.kinds.fold}, self.buckets
        self.tasks = add.gauge(
            "taskd_tasks",
            "Tasks in the store, at most 5 s old while the database answers. The same in all processes: take the max.",
            "status",
        )
        self.created = add.counter(
            "taskd_tasks_created_total", "Tasks created through this process.", "kind", fold=fold
        )
        self.finished = add.counter(
            "taskd_tasks_finished_total",
            "Tasks that came to an end, by outcome: done, failed, cancelled. Counted by the process that ended them.",
            "kind",
            "outcome",
            fold=fold,
        )
        self.processing = add.histogram(
            "taskd_task_processing_seconds",
            "Time of an attempt from its start to its end, those that will be retried included.",
            "kind",
            buckets=buckets,
            fold=fold,
        )
        self.wait = add.histogram(
            "taskd_task_wait_seconds",
            "Time of a task from being ready to being started.",
            "kind",
            buckets=buckets,
            fold=fold,
        )

    def _declare_queue(self) -> None:
        add = self.registry
        self.oldest_ready = add.gauge(
            "taskd_queue_oldest_ready_seconds",
            "How long the oldest ready task has waited; 0 when none waits. The same in every process.",
        )
        self.workers_busy = add.gauge(
            "taskd_workers_busy", "Tasks that run in this process, or at workers elsewhere that are connected to it."
        )
        self.workers_slots = add.gauge(
            "taskd_workers_slots", "Tasks that may run there at once; 0 while none can be taken."
        )
        # Where nothing works, 0 is right for good.
        self.workers_busy.expect()
        self.workers_slots.expect()
        self.rescued = add.counter("taskd_tasks_rescued_total", "Tasks taken back from a process that died.")
        self.refused = add.counter(
            "taskd_results_refused_total", "Results refused, because the attempt was no longer that worker's own."
        )

    def _declare_sockets(self) -> None:
        add = self.registry
        self.sockets = add.gauge("taskd_websocket_connections", "WebSockets that are open now.")
        self.sockets.expect()
        self.events_sent = add.counter("taskd_websocket_events_sent_total", "Events written to WebSockets.")
        self.sockets_closed = add.counter("taskd_websocket_closed_total", "WebSockets that ended, by reason.", "reason")
        self.delivery = add.histogram(
            "taskd_event_delivery_seconds",
            "Time of an event from its change in the database to each WebSocket that is told of it at once.",
            buckets=self._fixed,
        )

    def _declare_cache(self) -> None:
        add = self.registry
        self.cache_requests = add.counter(
            "taskd_cache_requests_total",
            "Reads through the cache. hit: answered from it; miss: loaded; coalesced: waited for another's load.",
            "cache",
            "result",
        )
        for cache in ("task", "list"):
            for result in ("hit", "miss", "coalesced"):
                self.cache_requests.expect(cache, result)
        self.cache_entries = add.gauge(
            "taskd_cache_entries", "Reads that are kept now, those included that changes have ended.", "cache"
        )
        self.cache_evictions = add.counter(
            "taskd_cache_evictions_total",
            "Entries that left the cache: expired, invalidated, or for want of room by number or by bytes.",
            "cache",
            "reason",
        )
        self.cache_up = add.gauge("taskd_cache_up", "Whether the cache answers: 0 while Redis is away, else 1.")

    def _declare_calls(self) -> None:
        add, buckets = self.registry, self._fixed
        self.auth_refused = add.counter(
            "taskd_auth_refused_total",
            "Calls refused for who made them. missing: no token; unknown: one that names nobody; address: too many of"
            " those from there; forbidden: not of the role; rate: too many calls.",
            "reason",
        )
        self.http_requests = add.counter(
            "taskd_http_requests_total",
            "HTTP requests answered. What no route fits has the route unmatched, a method that no route has is other.",
            "method",
            "route",
            "status",
        )
        self.http_seconds = add.histogram(
            "taskd_http_request_seconds",
            "Time from a request's last byte to its answer; of a stream, to its beginning.",
            "method",
            "route",
            buckets=buckets,
        )
        self.grpc_requests = add.counter(
            "taskd_grpc_requests_total",
            "gRPC calls answered. A method that does not exist is other.",
            "method",
            "code",
        )
        self.grpc_seconds = add.histogram(
            "taskd_grpc_request_seconds", "Time of a unary gRPC call.", "method", buckets=buckets
        )

    def _declare_ground(self) -> None:
        add, buckets = self.registry, self._fixed
        self.database_up = add.gauge("taskd_database_up", "Whether the database answers, 1 or 0; absent in a gateway.")
        self.upstream_up = add.gauge(
            "taskd_upstream_up", "Whether the upstream of a gateway answers, 1 or 0; absent elsewhere."
        )
        self.log_behind = add.gauge(
            "taskd_event_log_behind_seconds",
            "How long committed events have waited for a transaction that is open, or for the database; 0: none.",
        )
        self.pool_connections = add.gauge(
            "taskd_database_pool_connections", "Connections to the database, by state: busy, idle.", "state"
        )
        self.query_seconds = add.histogram(
            "taskd_database_query_seconds",
            "Time of a statement, from its sending to its last row.",
            "query",
            buckets=buckets,
        )
        self.loop_lag = add.histogram(
            "taskd_event_loop_lag_seconds",
            "How late the event loop came to what was due; sampled twice a second.",
            buckets=buckets,
        )


def docs_page() -> str:
    """Return docs/metrics.md."""
    rows = ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    catalog = Catalog()
    for family in catalog.registry.families:
        labels = ", ".join(f"`{name}`" for name in family.label_names)
        kind = "gauge" if family.kind == "info" else family.kind
        rows.append(f"| `{family.name}` | {kind} | {labels} | {family.help} |")
    bounds = ", ".join(f"{bound:g}" for bound in catalog.buckets)
    return _PAGE.format(table="\n".join(rows), bounds=bounds, kinds=KINDS)


_PAGE = """# Metrics

<!-- Printed from the catalog: python -m taskd.metrics.catalog > docs/metrics.md -->

`GET /metrics` shows what a process has counted since it started. The form follows the `Accept` header:

| asked for | answered |
| --- | --- |
| nothing, `text/plain`, `*/*` | Prometheus text 0.0.4 |
| `application/openmetrics-text` | OpenMetrics 1.0 |
| `application/json` | a summary for people and scripts |

`?format=text`, `?format=openmetrics` and `?format=json` give these whatever `Accept` says.

A scrape reads numbers that the process holds already and never touches the database. Counters and histograms count what
this process did, so sum them over processes. `taskd_tasks` and `taskd_queue_oldest_ready_seconds` tell of
the whole store and are the same in every process, so take their maximum. A gauge whose value is not known yet
is absent: `taskd_tasks` until they have been counted, `taskd_cache_entries` where Redis holds them. A gateway knows of no
tasks, and has neither database nor workers: what tells of these is absent or 0 there.

The bounds of all histograms are seconds: {bounds}. `TASKD_METRICS_BUCKETS` sets others
for the times of tasks (`taskd_task_processing_seconds`, `taskd_task_wait_seconds`); the alert rules count on the rest.

An outage of the database can cost counts, never tasks: of a commit whose answer was lost, nobody knows that it was one.

## Names

{table}

Labels are bounded. A path that no route fits is `route="unmatched"`, a method that no route has is `method="other"`. A
`kind` with a handler in this process is always shown by name, and so are the first {kinds} others; all further ones are
`kind="other"`.

What was answered before its route was looked for is `route="unmatched"` too: a request that could not be read, a
browser's question before a request from another origin. A request that could not be read has no last byte, so it is
counted, and has no time.

## Questions and their queries

| question | PromQL |
| --- | --- |
| How long does a task take on average? | `sum(rate(taskd_task_processing_seconds_sum[5m])) / sum(rate(taskd_task_processing_seconds_count[5m]))` |
| … at the slowest twentieth? | `histogram_quantile(0.95, sum by (le) (rate(taskd_task_processing_seconds_bucket[5m])))` |
| How many tasks wait? | `max(taskd_tasks{{status="new"}})` |
| Which part of the tasks fails? | `sum(rate(taskd_tasks_finished_total{{outcome="failed"}}[15m])) / sum(rate(taskd_tasks_finished_total[15m]))` |
| How many sockets are open? | `sum(taskd_websocket_connections)` |
| How often does the cache spare a query? | `sum(rate(taskd_cache_requests_total{{result!="miss"}}[5m])) / sum(rate(taskd_cache_requests_total[5m]))` |

`deploy/alerts.yml` has alert rules over these, `deploy/grafana-dashboard.json` a dashboard; `docker compose up` starts
both.

## The JSON form

| field | meaning |
| --- | --- |
| `tasks` | the number of tasks in the store by status, and their `total` |
| `average_processing_seconds` | mean time of an attempt, of all that any process ended since this one started; `null` before the first |
| `websocket_connections` | sockets open in this process |
| `cache` | `hits`, `misses`, `coalesced` of this process; `hit_ratio` is the hits among them all, `null` before the first; `entries`, `null` where Redis holds them; `up`: whether the cache answers |
| `queue` | `ready` and `running` tasks in the store, `oldest_ready_seconds` |
| `workers` | `busy`, `slots` of this process |
| `uptime_seconds`, `version` | of taskd in this process |

Numbers of tasks are 0 until they have been counted, which takes a moment after the start.
"""  # noqa: E501 - a row of a table is one line


if __name__ == "__main__":
    print(docs_page(), end="")
