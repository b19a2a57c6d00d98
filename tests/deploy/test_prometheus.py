"""A real Prometheus understands what a running taskd tells, and answers the questions that are asked of it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as read

from taskd import Context, Task, Taskd
from tests.deploy.programs import needs
from tests.deploy.prometheus import DEPLOY, Prometheus, scraping
from tests.running import Server, embedded
from tests.waiting import eventually

pytestmark = needs("prometheus")

AVERAGE = "sum(taskd_task_processing_seconds_sum) / sum(taskd_task_processing_seconds_count)"
AVERAGE_NOW = "sum(rate(taskd_task_processing_seconds_sum[1m])) / sum(rate(taskd_task_processing_seconds_count[1m]))"

WITHOUT_DATA = {
    "taskd_grpc_requests_total",
    "taskd_grpc_request_seconds_bucket",
    "taskd_cache_evictions_total",
    "taskd_upstream_up",
}
"""Of what a server without gRPC and an upstream, and with little to do, has no series."""


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    """A taskd with a handler of the kind `quick`."""
    app = Taskd(database_url=database_url, http="127.0.0.1:0")

    @app.handler("quick")
    async def quick(task: Task, ctx: Context) -> str:
        return "done"

    async with embedded(database_url, app) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


@pytest.fixture
async def prometheus(server: Server) -> AsyncIterator[Prometheus]:
    async with scraping(server.address) as prometheus:
        yield prometheus


async def finish(client: httpx.AsyncClient, number: int = 1) -> None:
    """Create so many tasks and wait until they are done."""
    body = {"tasks": [{"title": "t", "kind": "quick"} for _ in range(number)]}
    created = (await client.post("/tasks/batch", json=body)).json()["tasks"]

    async def done() -> bool:
        tasks = [(await client.get(f"/tasks/{task['id']}")).json() for task in created]
        return all(task["status"] == "done" for task in tasks)

    await eventually(done)


async def told(client: httpx.AsyncClient, name: str) -> float:
    """Return the sum of all series of a name, as taskd tells it now."""
    families = read((await client.get("/metrics")).text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def test_it_answers_with_the_average_processing_time(client: httpx.AsyncClient, prometheus: Prometheus) -> None:
    await finish(client, 5)

    async def of_all_five() -> float | None:
        return await prometheus.value(f"{AVERAGE} and sum(taskd_task_processing_seconds_count) == 5")

    average = await eventually(of_all_five)
    assert average == pytest.approx(await told(client, "taskd_task_processing_seconds_sum") / 5)

    async def of_the_last_minute() -> float:
        # A rate needs two scrapes with a task that ended between them, and none that ended long ago tells anything.
        await finish(client)
        found = await prometheus.value(AVERAGE_NOW)
        return 0 if found is None or math.isnan(found) else found

    assert 0 < await eventually(of_the_last_minute) <= await told(client, "taskd_task_processing_seconds_sum")


async def test_a_scrape_goes_without_a_fault_and_takes_the_richer_form(prometheus: Prometheus) -> None:
    async def went_well() -> bool:
        (target,) = (await prometheus.get("targets"))["activeTargets"]
        return (target["health"], target["lastError"]) == ("up", "") and await prometheus.scraped()

    async def many_samples() -> bool:
        return (await prometheus.value("scrape_samples_scraped") or 0) > 100

    # Again and again: one that comes late on a busy machine is no fault of what is told.
    await eventually(went_well)
    await eventually(many_samples)
    # Only OpenMetrics tells units.
    metadata = await prometheus.get("targets/metadata", metric="taskd_task_processing_seconds")
    assert [(one["type"], one["unit"]) for one in metadata] == [("histogram", "seconds")]


async def test_no_alert_fires_on_a_server_that_is_well(client: httpx.AsyncClient, prometheus: Prometheus) -> None:
    await finish(client, 3)
    looked = [rule["lastEvaluation"] for rule in await rules(prometheus)]
    wanted = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    assert len(looked) == len(wanted)

    async def quiet() -> bool:
        found = await rules(prometheus)
        assert [rule["name"] for rule in found] == [rule["alert"] for rule in wanted]
        assert [rule["name"] for rule in found if rule["state"] == "firing" or rule.get("lastError")] == []
        again = all(rule["lastEvaluation"] != before for rule, before in zip(found, looked, strict=True))
        # One may wait for its time from before the first scrape, or after one that was late.
        return again and all(rule["state"] == "inactive" and rule["health"] == "ok" for rule in found)

    await eventually(quiet)


async def rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    """Return the rules that are loaded, with their state."""
    return [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]


async def test_each_query_of_the_dashboard_finds_something(
    server: Server, client: httpx.AsyncClient, prometheus: Prometheus
) -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    values = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$job": "taskd"}
    for name, value in values.items():
        queries = [query.replace(name, value) for query in queries]
    queries = [query for query in queries if not any(name in query for name in WITHOUT_DATA)]
    assert len(queries) > 40

    silent = list(queries)

    async def all_found() -> bool:
        # Some series begin when something is counted, and a rate when it is counted again.
        await finish(client)
        await client.get("/nowhere")
        async with server.socket():
            pass
        silent[:] = [query for query in silent if not await prometheus.series(query)]
        return not silent

    try:
        await eventually(all_found)
    finally:
        assert silent == []
