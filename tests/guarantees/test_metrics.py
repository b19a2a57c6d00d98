"""The metrics are true: what they say is what was done."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus

from taskd import Context, RetryPolicy, Task, Taskd
from taskd.domain.outcome import Ending, Outcome
from taskd.store.migrate import migrate
from taskd.store.pool import Database
from tests.clusters import Cluster
from tests.running import embedded, receive, served
from tests.waiting import eventually

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient) -> Samples:
    """Return all samples, by name and labels."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample; 0 when there is none."""
    return samples.get((name, frozenset(labels.items())), 0)


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """Return the samples of a name by one label, those of 0 left out."""
    found: Counter[str] = Counter()
    for (sample, labels), number in samples.items():
        if sample == name and number:
            found[dict(labels)[label]] += number  # type: ignore[assignment]
    return dict(found)


def working(url: str, **settings: Any) -> Taskd:
    """Return a server with handlers that succeed, fail, or fail once."""
    app = Taskd(database_url=url, http="127.0.0.1:0", **settings)
    at_once = RetryPolicy(first=0.001, cap=0.001)

    @app.handler("good")
    async def good(task: Task, ctx: Context) -> None:
        """Succeeds."""

    @app.handler("bad", max_attempts=2, retry=at_once)
    async def bad(task: Task, ctx: Context) -> None:
        raise ValueError("bad")

    @app.handler("second", retry=at_once)
    async def second(task: Task, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("the first")

    @app.handler("long")
    async def long(task: Task, ctx: Context) -> None:
        await asyncio.Event().wait()

    return app


async def test_tasks_are_counted_as_they_come_and_end(database_url: str) -> None:
    async with embedded(database_url, working(database_url)) as server, server.client() as client:
        for kind, number in (("good", 7), ("bad", 3), ("second", 2)):
            body = {"tasks": [{"title": "t", "kind": kind} for _ in range(number)]}
            # The second time with the same key is an answer, not a creation.
            for _ in range(2):
                key = {"Idempotency-Key": kind}
                assert (await client.post("/tasks/batch", json=body, headers=key)).status_code == 201
        waiting = (await client.post("/tasks", json={"title": "t", "kind": "nobody"})).headers["Location"]
        running = (await client.post("/tasks", json={"title": "t", "kind": "long"})).headers["Location"]

        async def running_now() -> bool:
            return bool((await client.get(running)).json()["status"] == "running")

        await eventually(running_now)
        for path in (waiting, waiting, running):
            assert (await client.post(f"{path}/cancel")).status_code == 200

        async def all_ended() -> bool:
            return sum(by_label(await scrape(client), "taskd_tasks_finished_total", "kind").values()) == 14

        await eventually(all_ended)
        samples = await scrape(client)
        assert by_label(samples, "taskd_tasks_created_total", "kind") == {
            "good": 7, "bad": 3, "second": 2, "nobody": 1, "long": 1,
        }  # fmt: skip
        assert by_label(samples, "taskd_tasks_finished_total", "outcome") == {"done": 9, "failed": 3, "cancelled": 2}
        attempts = {"good": 7, "bad": 6, "second": 4, "long": 1}
        assert by_label(samples, "taskd_task_processing_seconds_count", "kind") == attempts
        assert by_label(samples, "taskd_task_wait_seconds_count", "kind") == attempts
        await eventually(lambda: _counted(client, {"done": 9, "failed": 3, "cancelled": 2}))
        told = (await client.get("/metrics?format=json")).json()
        assert told["tasks"]["total"] == 14
        took = sum(by_label(samples, "taskd_task_processing_seconds_sum", "kind").values())
        assert abs(told["average_processing_seconds"] - took / 18) < 1e-3


async def _counted(client: httpx.AsyncClient, expected: dict[str, int]) -> bool:
    return by_label(await scrape(client), "taskd_tasks", "status") == expected


async def _really(url: str) -> dict[str, int]:
    database = Database(url)
    await database.open()
    rows = await database.fetch("SELECT status, count(*) AS number FROM task_states GROUP BY status")
    await database.close()
    return {row["status"]: row["number"] for row in rows}


async def test_the_number_of_tasks_is_right_in_every_process_and_after_a_crash(database_url: str) -> None:
    async with (
        served(database_url, "--concurrency", "8") as doomed,
        served(database_url, "--role", "api") as front,
        doomed.client() as there,
        front.client() as here,
    ):
        for kind, number in (("echo", 300), ("sleep", 20), ("nobody", 30)):
            body = {"tasks": [{"title": "t", "kind": kind, "payload": {"seconds": 600}}] * number}
            assert (await here.post("/tasks/batch", json=body)).status_code == 201
        expected = {"done": 300, "running": 8, "new": 42}
        for client in (here, there):
            await eventually(lambda client=client: _counted(client, expected))
        assert await _really(database_url) == expected
        await doomed.kill()
        await _take_over(database_url, here)


async def _take_over(url: str, here: httpx.AsyncClient) -> None:
    """Let another process do what a killed one left, and look at both that are there."""
    worker = served(url, "--role", "worker", handlers="tests.handlers")
    async with worker as survivor, survivor.client() as other:
        expected = {"done": 320, "new": 30}
        for client in (here, other):
            await eventually(lambda client=client: _counted(client, expected))
        assert await _really(url) == expected
        samples = await scrape(other)
        assert value(samples, "taskd_tasks_rescued_total") == 8
        assert value(samples, "taskd_tasks_finished_total", kind="sleep", outcome="done") == 20


async def test_a_result_that_comes_too_late_is_refused_and_counted(database_url: str) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    app = Taskd(database_url=database_url, http="127.0.0.1:0")

    @app.handler("slow")
    async def slow(task: Task, ctx: Context) -> None:
        begun.set()
        await go.wait()

    async with embedded(database_url, app) as server, server.client() as client:
        task = (await client.post("/tasks", json={"title": "t", "kind": "slow"})).json()
        await begun.wait()
        assert app.parts.keeper.lease is not None
        stolen = Outcome(UUID(task["id"]), 1, app.parts.keeper.lease, Ending.DONE, result_json="1")
        assert await app.parts.claims.finish(stolen) is not None
        go.set()

        async def refused() -> bool:
            return value(await scrape(client), "taskd_results_refused_total") == 1

        await eventually(refused)
        finished = by_label(await scrape(client), "taskd_tasks_finished_total", "outcome")
        assert finished == {"done": 1}


async def test_sockets_are_counted_as_they_come_and_go(database_url: str) -> None:
    async with embedded(database_url, role="api", ws_connections_per_user=2) as server, server.client() as client:
        async with server.socket(client="a") as first, server.socket(client="b") as second:
            await receive(first)
            await receive(second)
            async with server.socket(client="a") as third:
                await receive(third)
                samples = await scrape(client)
                assert value(samples, "taskd_websocket_connections") == 2
                assert by_label(samples, "taskd_websocket_closed_total", "reason") == {"replaced": 1}
                with pytest.raises(InvalidStatus):
                    await server.socket(client="no name").__aenter__()
                await client.post("/tasks", json={"title": "t", "kind": "nobody"})
                for socket in (second, third):
                    assert (await receive(socket))["event"]["type"] == "created"
                samples = await scrape(client)
                assert value(samples, "taskd_websocket_events_sent_total") == 2
                assert value(samples, "taskd_event_delivery_seconds_count") == 2
                assert 0 < value(samples, "taskd_event_delivery_seconds_sum") < 60
        await eventually(lambda: _open(client, 0))
        reasons = by_label(await scrape(client), "taskd_websocket_closed_total", "reason")
        assert reasons == {"replaced": 1, "client": 2}
        handshakes = {"method": "GET", "route": "/ws"}
        samples = await scrape(client)
        assert value(samples, "taskd_http_requests_total", **handshakes, status="101") == 3
        assert value(samples, "taskd_http_requests_total", **handshakes, status="422") == 1
        assert value(samples, "taskd_http_request_seconds_count", **handshakes) == 4


async def _open(client: httpx.AsyncClient, number: int) -> bool:
    return value(await scrape(client), "taskd_websocket_connections") == number


async def test_a_consumer_that_is_closed_as_slow_is_counted_as_such(database_url: str) -> None:
    async with embedded(database_url, role="api") as server, server.client() as client:
        reader, writer = await asyncio.open_connection(*server.address.split(":"))
        writer.write(
            b"GET /ws?user=ann HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def closed_as_slow() -> bool:
            body = {"tasks": [{"title": "t", "kind": "nobody", "payload": {"a": "x" * 100_000}}] * 9}
            assert (await client.post("/tasks/batch", json=body)).status_code == 201
            return by_label(await scrape(client), "taskd_websocket_closed_total", "reason") == {"slow_consumer": 1}

        await eventually(closed_as_slow)
        writer.transport.abort()


async def test_the_cache_is_counted_hit_by_hit(database_url: str) -> None:
    async with embedded(database_url, role="api", cache="memory") as server, server.client() as client:
        empty = (await client.get("/metrics?format=json")).json()["cache"]
        assert (empty["hits"], empty["misses"], empty["entries"], empty["hit_ratio"]) == (0, 0, 0, None)
        path = (await client.post("/tasks", json={"title": "t", "kind": "nobody"})).headers["Location"]
        for target, number in ((path, 5), ("/tasks", 3)):
            for _ in range(number):
                await client.get(target)
        samples = await scrape(client)
        told = {
            (cache, result): value(samples, "taskd_cache_requests_total", cache=cache, result=result)
            for cache in ("task", "list")
            for result in ("hit", "miss", "coalesced")
        }
        assert told == {
            ("task", "hit"): 4, ("task", "miss"): 1, ("task", "coalesced"): 0,
            ("list", "hit"): 2, ("list", "miss"): 1, ("list", "coalesced"): 0,
        }  # fmt: skip
        assert by_label(samples, "taskd_cache_entries", "cache") == {"task": 1, "list": 1}
        await client.patch(path, json={"title": "new"})
        await client.get("/tasks")
        samples = await scrape(client)
        assert value(samples, "taskd_cache_evictions_total", cache="task", reason="invalidated") == 1
        assert value(samples, "taskd_cache_evictions_total", cache="list", reason="invalidated") == 1
        cache = (await client.get("/metrics?format=json")).json()["cache"]
        assert (cache["hits"], cache["misses"], cache["entries"]) == (6, 3, 1)
        assert cache["hit_ratio"] == 6 / 9


async def test_kinds_that_nobody_registered_are_bounded(database_url: str) -> None:
    async with embedded(database_url, working(database_url)) as server, server.client() as client:
        body = {"tasks": [{"title": "t", "kind": f"made-up-{n}"} for n in range(150)]}
        assert (await client.post("/tasks/batch", json=body)).status_code == 201
        assert (await client.post("/tasks", json={"title": "t", "kind": "second"})).status_code == 201
        created = by_label(await scrape(client), "taskd_tasks_created_total", "kind")
        assert len(created) == 102
        assert (created["other"], created["second"]) == (50, 1)


async def test_a_scrape_needs_no_database(new_cluster: Any) -> None:
    cluster: Cluster = await new_cluster()
    await migrate(cluster.url)
    async with embedded(cluster.url, cache="memory") as server, server.client() as client:
        await client.post("/tasks", json={"title": "t", "kind": "nobody"})
        await eventually(lambda: _counted(client, {"new": 1}))
        assert value(await scrape(client), "taskd_database_up") == 1
        await cluster.stop()
        assert await _counted(client, {"new": 1})
        await eventually(lambda: _is_up(client, 0))
        await eventually(lambda: _is_behind(client))
        assert (await client.get("/metrics?format=json")).json()["queue"]["ready"] == 1
        # And it goes on counting where it was, once the database is back.
        await cluster.start()

        async def created() -> bool:
            return (await client.post("/tasks", json={"title": "t", "kind": "nobody"})).status_code == 201

        await eventually(created)

        async def right() -> bool:
            return by_label(await scrape(client), "taskd_tasks", "status") == await _really(cluster.url)

        await eventually(right)
        await eventually(lambda: _is_up(client, 1))


async def _is_behind(client: httpx.AsyncClient) -> bool:
    return value(await scrape(client), "taskd_event_log_behind_seconds") > 0


async def _is_up(client: httpx.AsyncClient, number: int) -> bool:
    return value(await scrape(client), "taskd_database_up") == number


async def test_the_oldest_ready_task_gives_the_age_of_the_queue(database_url: str) -> None:
    async with embedded(database_url, role="api") as server, server.client() as client:
        assert value(await scrape(client), "taskd_queue_oldest_ready_seconds") == 0
        path = (await client.post("/tasks", json={"title": "t", "kind": "nobody"})).headers["Location"]

        async def older() -> bool:
            return value(await scrape(client), "taskd_queue_oldest_ready_seconds") > 0

        await eventually(older)
        await client.post(f"{path}/cancel")

        async def none() -> bool:
            return value(await scrape(client), "taskd_queue_oldest_ready_seconds") == 0

        await eventually(none)


async def test_a_process_without_handlers_has_no_slots(database_url: str) -> None:
    app = Taskd(database_url=database_url, http="127.0.0.1:0", concurrency=3)
    async with embedded(database_url, app) as server, server.client() as client:
        assert value(await scrape(client), "taskd_workers_slots") == 0
        app.handler("late")(lambda task, ctx: None)
        assert value(await scrape(client), "taskd_workers_slots") == 3


async def test_what_an_open_transaction_holds_back_is_told(database_url: str) -> None:
    holder = await asyncpg.connect(database_url)
    async with embedded(database_url, role="api") as server, server.client() as client, holder.transaction():
        await holder.fetchval("SELECT pg_current_xact_id()")
        await client.post("/tasks", json={"title": "t", "kind": "nobody"})

        async def told() -> bool:
            return await _is_behind(client) and await _counted(client, {"new": 1})

        await eventually(told)
    await holder.close()


async def test_a_worker_shows_its_slots(database_url: str) -> None:
    app = working(database_url, role="worker", concurrency=3, shutdown_seconds=0)
    async with embedded(database_url, app) as server, server.client() as client:
        await app.tasks.create("t", kind="long")

        async def busy() -> bool:
            samples = await scrape(client)
            assert value(samples, "taskd_workers_slots") == 3
            return value(samples, "taskd_workers_busy") == 1

        await eventually(busy)


async def test_a_socket_that_is_cut_off_is_counted_as_lost(database_url: str) -> None:
    async with embedded(database_url, role="api") as server, server.client() as client:
        async with server.socket() as socket:
            await receive(socket)
            socket.transport.abort()
            with contextlib.suppress(ConnectionClosed):
                await socket.recv()
        await eventually(lambda: _lost(client))


async def _lost(client: httpx.AsyncClient) -> bool:
    return by_label(await scrape(client), "taskd_websocket_closed_total", "reason") == {"lost": 1}
