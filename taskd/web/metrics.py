"""`GET /metrics`: one catalog in three formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from taskd.domain.access import Access
from taskd.domain.codec import dump_json
from taskd.domain.fields import Choice
from taskd.domain.forms import Entry, Form
from taskd.errors import NotAcceptable
from taskd.http1.accept import best
from taskd.metrics.catalog import Catalog
from taskd.metrics.expose import OPEN_METRICS, TEXT, open_metrics, text
from taskd.metrics.summary import summary
from taskd.web.message import JSON, Request, Response
from taskd.web.router import Reply, Route


class Format(NamedTuple):
    """One form of the metrics."""

    media_type: str
    write: Callable[[Catalog], bytes]


FORMATS = {
    "text": Format(TEXT, lambda catalog: text(catalog.registry)),
    "openmetrics": Format(OPEN_METRICS, lambda catalog: open_metrics(catalog.registry)),
    "json": Format(JSON, lambda catalog: dump_json(summary(catalog)).encode()),
}
"""By their names in the query, the favourite first."""

# Prometheus 3 asks for a way to write names that are not of letters, digits and underscores; here all are, so any way
# is the same. Source: Prometheus, "Scrape protocol content negotiation".
_ESCAPING = ("underscores", "dots", "values", "allow-utf-8")

# JSON has no charset (RFC 8259 11), but there are clients that ask with one.
_OFFERS = {form.media_type: form for form in FORMATS.values()} | {f"{JSON}; charset=utf-8": FORMATS["json"]} | {
    f"{form.media_type}; escaping={way}": form
    for form in (FORMATS["text"], FORMATS["openmetrics"])
    for way in _ESCAPING
}

QUERY = Form(
    {"format": Entry(Choice(tuple(FORMATS)), "the form of the answer, whatever `Accept` says; left out: by that", None)}
)


class MetricsCalls:
    """Handler of the metrics route."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def show(self, request: Request) -> Response:
        """`GET /metrics`

        Raises:
            NotAcceptable: the client takes none of the formats.
        """
        named = request.args.get("format")
        form = _chosen(request) if named is None else FORMATS[named]
        # What is told is of this moment, and of who asked for it.
        headers = [("Cache-Control", "no-store"), ("Vary", "Accept")]
        return Response(200, form.write(self._catalog), form.media_type, headers)

    def routes(self) -> Sequence[Route]:
        """Return the route of this call."""
        produces = tuple(form.media_type for form in FORMATS.values())
        return (
            Route(
                "GET", "/metrics", self.show, "What this process has counted",
                {200: Reply("the metrics", "Metrics")}, Access.METRICS, query=QUERY, produces=produces, own_accept=True,
            ),
        )  # fmt: skip


def _chosen(request: Request) -> Format:
    offer = best(request.head.get(b"accept"), tuple(_OFFERS))
    if offer is None:
        raise NotAcceptable(f"this call answers with {' or '.join(form.media_type for form in FORMATS.values())}")
    return _OFFERS[offer]
