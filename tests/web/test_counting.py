"""What is counted of requests, and how they are timed: exactly what was done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.errors import NotFound, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.web.application import application
from taskd.web.message import Answer, Request, Response, Sink, Stream
from taskd.web.middleware import Measure
from taskd.web.router import Route
from tests.gates import callers
from tests.waiting import eventually
from tests.web.serving import Clock, Held, Serving, request, serving
from tests.web.site import Site, fine, made, route

ID = "0198c0c0-0000-7000-8000-000000000000"
Counts = dict[tuple[str, ...], float]


def requests_of(catalog: Catalog) -> Counts:
    """Return how many requests were answered, by method, route and status."""
    return {values: series.value for values, series in catalog.http_requests.series().items()}


def timed_of(catalog: Catalog) -> Counts:
    """Return how many requests were timed, by method and route."""
    return {values: catalog.http_seconds.labels(*values).count for values in catalog.http_seconds.series()}


async def missing(request: Request) -> Answer:
    raise NotFound("not here")


async def away(request: Request) -> Answer:
    raise Unavailable("the database is away")


async def broken(request: Request) -> Answer:
    raise RuntimeError("a bug")


async def stream(request: Request) -> Answer:
    async def run(sink: Sink) -> None:
        await sink.write(b"one")
        await asyncio.Event().wait()

    return Stream(run, "text/event-stream")


ROUTES = (
    route(fine),
    route(fine, "POST"),
    route(fine, path="/things/{id}"),
    route(missing, "DELETE", "/things/{id}"),
    route(away, path="/away"),
    route(broken, path="/broken"),
    route(stream, path="/stream", produces=("text/event-stream",)),
)


@contextlib.asynccontextmanager
async def counting(*routes: Route, origins: tuple[str, ...] = ()) -> AsyncIterator[tuple[Serving, Catalog]]:
    """Run a server; yield it and its catalog."""
    catalog = Catalog()
    handle = application(routes or ROUTES, callers(), origins, catalog)
    async with serving(handle, catalog=catalog) as found:
        yield found, catalog


async def test_each_sort_of_request_is_counted_as_often_as_it_came() -> None:
    asked = [
        (3, "GET", "/thing", ("GET", "/thing", "200")),
        (2, "HEAD", "/thing", ("HEAD", "/thing", "200")),
        (4, "GET", f"/things/{ID}", ("GET", "/things/{id}", "200")),
        (1, "GET", f"/things/{ID[:-1]}9", ("GET", "/things/{id}", "200")),
        (2, "GET", "/things/x", ("GET", "/things/{id}", "422")),
        (2, "DELETE", f"/things/{ID}", ("DELETE", "/things/{id}", "404")),
        (1, "GET", "/away", ("GET", "/away", "503")),
        (2, "GET", "/thing?typo=1", ("GET", "/thing", "422")),
        (2, "PATCH", "/thing", ("PATCH", "/thing", "405")),
        (3, "PUT", "/thing", ("other", "/thing", "405")),
        (1, "TRACE", "/nowhere", ("other", "unmatched", "404")),
        (2, "OPTIONS", "/thing", ("OPTIONS", "/thing", "204")),
        (1, "OPTIONS", "*", ("OPTIONS", "unmatched", "204")),
        (1, "GET", "/thing?user=", ("GET", "/thing", "422")),
        (1, "POST", "/thing", ("POST", "/thing", "200")),
    ]
    expected: Counts = {}
    async with counting() as (found, catalog):
        client = await found.client()
        for times, method, target, labels in asked:
            expected[labels] = expected.get(labels, 0) + times
            for _ in range(times):
                assert str((await client.ask(method, target)).status) == labels[2]
        assert requests_of(catalog) == expected
        timed: Counts = {}
        for (method, path, status), count in expected.items():
            if status == "405":
                # A path has no time for each method that it does not take.
                method = "other"
            timed[method, path] = timed.get((method, path), 0) + count
        assert timed_of(catalog) == timed


async def test_paths_that_nobody_has_are_one_series() -> None:
    async with counting() as (found, catalog):
        client = await found.client()
        for number in range(200):
            assert (await client.ask("GET", f"/{number}/{'x' * number}")).status == 404
        assert requests_of(catalog) == {("GET", "unmatched", "404"): 200}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "HEAD", "PUT", "TRACE", "POST"]),
            st.lists(st.sampled_from([*"abc/0123{}", "%00", "%C3", "%7b"]), max_size=8).map("/".join),
        )
    )
)
async def test_whatever_is_asked_for_the_series_are_few(asked: list[tuple[str, str]]) -> None:
    site = Site(*ROUTES)
    for method, target in asked:
        await site.ask(method, f"/{target}")
    found = requests_of(site.catalog)
    assert sum(found.values()) == len(asked)
    assert {labels[0] for labels in found} <= {"GET", "HEAD", "POST", "other"}
    assert {labels[1] for labels in found} <= {one.path for one in ROUTES} | {"unmatched"}


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ("other", "unmatched", "400")),
        (b"GET /?a=%4 HTTP/1.1\r\nHost: a\r\n\r\n", ("other", "unmatched", "400")),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", ("other", "unmatched", "501")),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", ("other", "unmatched", "505")),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n", ("other", "unmatched", "414")),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 101 + b"\r\n", ("other", "unmatched", "431")),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", ("other", "unmatched", "413")),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            ("POST", "unmatched", "400"),
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            ("other", "unmatched", "400"),
        ),
    ],
)
async def test_what_cannot_be_read_is_counted_and_has_no_time(data: bytes, labels: tuple[str, ...]) -> None:
    async with counting() as (found, catalog):
        client = await found.client()
        client.send(request("GET", "/thing") + data)
        assert (await client.answer()).status == 200
        assert str((await client.answer()).status) == labels[2]
        assert requests_of(catalog) == {("GET", "/thing", "200"): 1, labels: 1}
        assert timed_of(catalog) == {("GET", "/thing"): 1}


@pytest.mark.parametrize(
    ("data", "method"), [(b"GET / HT", "other"), (b"PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", "PATCH")]
)
async def test_a_request_that_took_too_long_is_counted(data: bytes, method: str) -> None:
    async with counting() as (found, catalog):
        client = await found.client()
        client.send(data)
        await eventually(lambda: found.server.connections and found.connection.phase.name in ("HEAD", "BODY"))
        found.advance(31)
        assert (await client.answer()).status == 408
        assert requests_of(catalog) == {(method, "unmatched", "408"): 1}


async def test_a_client_that_asks_for_nothing_is_not_counted() -> None:
    async with counting() as (found, catalog):
        client = await found.client()
        await eventually(lambda: found.server.connections)
        found.advance(76)
        assert await client.rest() == b""
        assert requests_of(catalog) == {}


async def test_a_bug_is_counted_as_what_the_client_gets(caplog: pytest.LogCaptureFixture) -> None:
    async with counting() as (found, catalog):
        assert (await (await found.client()).ask("GET", "/broken")).status == 500
        assert requests_of(catalog) == {("GET", "/broken", "500"): 1}
    caplog.clear()


async def test_a_browsers_question_is_counted() -> None:
    async with counting(origins=("https://a.test",)) as (found, catalog):
        asked = {"Origin": "https://a.test", "Access_Control_Request_Method": "PATCH"}
        assert (await (await found.client()).ask("OPTIONS", "/thing", **asked)).status == 204
        assert requests_of(catalog) == {("OPTIONS", "unmatched", "204"): 1}


async def test_a_stream_is_counted_when_it_begins_and_once() -> None:
    async with counting() as (found, catalog):
        client = await found.client()
        client.send(request("GET", "/stream"))
        assert (await client.head()).status == 200
        assert await client.chunk() == b"one"
        assert requests_of(catalog) == {("GET", "/stream", "200"): 1}
        client.vanish()
        await eventually(lambda: found.server.connections == 0)
        assert requests_of(catalog) == {("GET", "/stream", "200"): 1}


async def test_a_request_that_is_never_answered_is_not_counted() -> None:
    held = Held()
    async with counting(route(held)) as (found, catalog):
        client = await found.client()
        client.send(request("GET", "/thing"))
        await asyncio.wait_for(held.asked.wait(), 20)
        await found.server.stop()
        await eventually(lambda: not found.supervisor._tasks)
        assert requests_of(catalog) == {}


async def test_the_time_is_from_the_request_to_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskd.http")
    catalog, clock = Catalog(buckets=(1, 2)), Clock()

    async def slow(request: Request) -> Answer:
        clock.now += 1.5
        return Response(200)

    measure = Measure(catalog, clock)
    asked = made("GET", "/thing")
    asked.route = "/thing"
    for _ in range(2):
        asked.begun = clock.now
        measure.note(asked, await slow(asked))
        clock.now += 100
    series = catalog.http_seconds.labels("GET", "/thing")
    assert (series.counts[series.bounds.index(2.5)], series.count, series.sum) == (2, 2, 3.0)
    # The log tells the same time.
    assert [vars(record)["taskd"]["milliseconds"] for record in caplog.records] == [1500, 1500]


async def test_a_streams_time_ends_where_it_begins() -> None:
    catalog, clock = Catalog(buckets=(1, 2)), Clock()

    async def run(sink: Sink) -> None:
        clock.now += 50

    async def handle(request: Request) -> Answer:
        clock.now += 1.5
        return Stream(run, "text/event-stream")

    class Nowhere:
        async def write(self, data: bytes) -> None: ...

    asked = made("GET", "/stream")
    asked.begun = clock.now
    answer = await handle(asked)
    Measure(catalog, clock).note(asked, answer)
    assert isinstance(answer, Stream)
    await answer.run(Nowhere())
    assert catalog.http_seconds.labels("GET", "unmatched").sum == 1.5
