"""Labels are text to Prometheus whatever is in them, and what clients may choose does not make series without end."""

from __future__ import annotations

import grpc
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from taskd.metrics.catalog import KINDS, Catalog
from taskd.metrics.expose import open_metrics, text
from tests.injection.hostile import HALF, NUL, TEXTS
from tests.injection.test_answers import answers
from tests.running import embedded


def test_any_text_is_one_value_of_one_label() -> None:
    catalog = Catalog()
    values = [*TEXTS.values(), NUL]
    for value in values:
        catalog.http_requests.labels(value, "/", "200").inc()
        catalog.http_seconds.labels("GET", value).observe(1)
    catalog.http_requests.labels(HALF, "/", "200").inc()
    for families in (text_families, open_metrics_families):
        written = text(catalog.registry) if families is text_families else open_metrics(catalog.registry)
        samples = [sample for family in families(written.decode()) for sample in family.samples]
        methods = [sample.labels["method"] for sample in samples if sample.name == "taskd_http_requests_total"]
        routes = [sample.labels["route"] for sample in samples if sample.name == "taskd_http_request_seconds_count"]
        assert methods[: len(values)] == values
        assert routes[: len(values)] == values
        assert not any("forged" in sample.labels.values() for sample in samples if sample.name == "taskd_tasks")


async def series_of(client: httpx.AsyncClient) -> int:
    answer = await client.get("/metrics")
    return sum(len(family.samples) for family in text_families(answer.text))


async def test_kinds_without_end_are_series_with_one(database_url: str) -> None:
    async with embedded(database_url, role="api") as server, server.client() as client:

        async def create(first: int) -> None:
            body = {"tasks": [{"title": "t", "kind": f"k{first + n}"} for n in range(1000)]}
            assert (await client.post("/tasks/batch", json=body)).status_code == 201

        await series_of(client)
        await create(0)
        before = await series_of(client)
        for first in range(1000, 4000, 1000):
            await create(first)
        assert await series_of(client) == before
        created = [line for line in (await client.get("/metrics")).text.splitlines() if "created_total{" in line]
        assert len(created) == KINDS + 1
        assert f'taskd_tasks_created_total{{kind="other"}} {4000 - KINDS}' in created


async def test_methods_and_paths_of_all_sorts_are_few_series(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server, server.client() as client:
        assert server.app is not None
        assert server.app.grpc_address is not None

        async def ask(first: int) -> None:
            async with grpc.aio.insecure_channel(server.app.grpc_address) as channel:  # type: ignore[union-attr, arg-type]
                for number in range(first, first + 50):
                    for method in (f"M{number}", "GET", "PUT"):
                        await answers(server, f"{method} /p{number}?q={number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    call = channel.unary_unary(f"/taskd.v1.TaskService/M{number}")
                    with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                        await call(b"")

        await series_of(client)
        await ask(0)
        before = await series_of(client)
        await ask(50)
        assert await series_of(client) == before
