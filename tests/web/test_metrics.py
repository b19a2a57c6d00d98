"""`GET /metrics`: which format is given to whom."""

from __future__ import annotations

import gzip
import json

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from taskd.metrics.catalog import Catalog
from taskd.metrics.expose import OPEN_METRICS, TEXT
from taskd.web.application import application, description
from taskd.web.message import JSON, Response
from taskd.web.metrics import MetricsCalls
from tests.gates import callers
from tests.web.serving import serving
from tests.web.site import Site, field

# As they are sent: prometheus/scrape/scrape.go of 2.30, 2.42 and 2.55; of 3.0 to 3.3, of later ones, with text first,
# and with protobuf first, for native histograms.
PROMETHEUS_2_30 = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_55 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;escaping=allow-utf-8;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;escaping=allow-utf-8;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_TEXT = (
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.3"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7," + PROMETHEUS_3
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


class Metrics(Site):
    """An application that has nothing but metrics: its own."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.handle = application(MetricsCalls(self.catalog).routes(), callers(), (), self.catalog)


async def ask(target: str = "/metrics", method: str = "GET", **fields: str) -> Response:
    return await Metrics().ask(method, target, **fields)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/plain", TEXT),
        ("text/plain; version=0.0.4", TEXT),
        ("text/plain;version=0.0.4;charset=utf-8", TEXT),
        (BROWSER, TEXT),
        (PROMETHEUS_2_30, TEXT),
        (PROMETHEUS_2_42, OPEN_METRICS),
        (PROMETHEUS_2_55, OPEN_METRICS),
        (PROMETHEUS_3_3, OPEN_METRICS),
        (PROMETHEUS_3, OPEN_METRICS),
        (PROMETHEUS_3_PROTOBUF, OPEN_METRICS),
        (PROMETHEUS_3_TEXT, TEXT),
        (PROMETHEUS_3.replace("allow-utf-8", "underscores"), OPEN_METRICS),
        (PROMETHEUS_3.replace("allow-utf-8", "values"), OPEN_METRICS),
        (PROMETHEUS_3.replace("allow-utf-8", "dots"), OPEN_METRICS),
        ("application/openmetrics-text", OPEN_METRICS),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/json, text/plain;q=0.9", JSON),
        ("application/json;q=0.5, text/plain;q=0.6", TEXT),
        ("application/json;q=0.5, application/openmetrics-text;q=0.6, */*;q=0.1", OPEN_METRICS),
        ("text/plain;q=0, */*", OPEN_METRICS),
        ("text/html, application/json;q=0.1", JSON),
    ],
)
async def test_the_format_follows_accept(accept: str | None, media_type: str) -> None:
    answer = await ask(**({} if accept is None else {"Accept": accept}))
    assert (answer.status, answer.media_type) == (200, media_type)
    assert b"# EOF" in answer.body if media_type == OPEN_METRICS else b"# EOF" not in answer.body


@pytest.mark.parametrize("accept", ["text/html", "image/png, text/plain;q=0", "*/*;q=0", "text/plain;version=1.0.0"])
async def test_who_takes_none_of_them_is_told_which_there_are(accept: str) -> None:
    answer = await ask(Accept=accept)
    assert answer.status == 406
    for media_type in (TEXT, OPEN_METRICS, JSON):
        assert media_type in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(("name", "media_type"), [("text", TEXT), ("openmetrics", OPEN_METRICS), ("json", JSON)])
@pytest.mark.parametrize("accept", ["*/*", "text/html", PROMETHEUS_3])
async def test_a_format_that_is_asked_for_by_name_is_given(name: str, media_type: str, accept: str) -> None:
    answer = await ask(f"/metrics?format={name}", Accept=accept)
    assert (answer.status, answer.media_type) == (200, media_type)


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=json&format=text", "form=json", "format=JSON"])
async def test_a_format_that_there_is_not_is_refused(query: str) -> None:
    assert (await ask(f"/metrics?{query}")).status == 422


async def test_nobody_keeps_it() -> None:
    answer = await ask(Accept="application/json")
    assert field(answer, "Cache-Control") == "no-store"
    assert "Accept" in (field(answer, "Vary") or "").split(", ")


async def test_each_format_is_read_by_its_reader() -> None:
    site = Metrics()
    site.catalog.created.labels("a").inc(5)
    for read, name in ((read_text, "text"), (read_open, "openmetrics")):
        body = (await site.ask("GET", f"/metrics?format={name}")).body.decode()
        found = {sample.name: sample.value for family in read(body) for sample in family.samples}
        assert found["taskd_tasks_created_total"] == 5
    site.catalog.tasks.labels("new").set(2)
    told = json.loads((await site.ask("GET", "/metrics?format=json")).body)
    assert told["tasks"]["total"] == 2


@pytest.mark.parametrize("known", [False, True])
async def test_the_summary_is_as_described(known: bool) -> None:
    site = Metrics()
    if known:
        site.catalog.average_processing = lambda: 0.5
        site.catalog.cache_up.track(lambda: 1)
        site.catalog.cache_entries.track(lambda: 3, "task")
        site.catalog.cache_requests.labels("task", "hit").inc()
        site.catalog.oldest_ready.track(lambda: 2.5)
    told = json.loads((await site.ask("GET", "/metrics?format=json")).body)
    schemas = {"components": description()["components"]}
    validator = Draft202012Validator({"$ref": "#/components/schemas/Metrics", **schemas})
    validator.validate(told)
    assert not validator.is_valid(told | {"more": 1})
    assert not validator.is_valid({**told, "workers": {"busy": 0.5, "slots": 1}})


def test_all_formats_are_described() -> None:
    operation = description()["paths"]["/metrics"]["get"]
    assert operation["responses"]["200"]["content"] == {
        TEXT: {"schema": {"type": "string"}},
        OPEN_METRICS: {"schema": {"type": "string"}},
        JSON: {"schema": {"$ref": "#/components/schemas/Metrics"}},
    }
    assert "406" in operation["responses"]


async def test_over_a_socket_with_head_and_gzip() -> None:
    site = Metrics()
    async with serving(site.handle, catalog=site.catalog) as found:
        client = await found.client()
        whole = await client.ask("GET", "/metrics", Accept=PROMETHEUS_2_42)
        assert (whole.status, whole.get("Content-Type")) == (200, OPEN_METRICS)
        assert whole.body.endswith(b"\n# EOF\n")
        packed = await client.ask("GET", "/metrics", Accept=PROMETHEUS_2_42, Accept_Encoding="gzip")
        assert packed.get("Content-Encoding") == "gzip"
        assert {"Accept", "Accept-Encoding"} <= set((packed.get("Vary") or "").split(", "))
        assert gzip.decompress(packed.body).endswith(b"\n# EOF\n")
        empty = await client.ask("HEAD", "/metrics", Accept=PROMETHEUS_2_42)
        assert (empty.status, empty.get("Content-Type"), empty.body) == (200, OPEN_METRICS, b"")
        # A scrape is counted once it is answered, so the next one tells of it.
        requests = {values: series.value for values, series in site.catalog.http_requests.series().items()}
        assert requests == {("GET", "/metrics", "200"): 2, ("HEAD", "/metrics", "200"): 1}
