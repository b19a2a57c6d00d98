"""Answers that are given again: they are what would be answered anew, whatever happened in between."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskd.domain.model import Role
from taskd.parts import Parts
from taskd.service.again import SURE_FOR
from taskd.service.auth import BELIEVED
from taskd.web.connection import Connection
from taskd.web.host import Phase
from tests.fronts import gateway
from tests.running import Server, embedded
from tests.tokens import revoke, token
from tests.waiting import eventually
from tests.web.serving import Client, Got, request

WAITING = {"title": "T", "kind": "nobody"}


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with embedded(database_url, cache="memory") as found:
        yield found


CLIENTS: list[Client] = []


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    """Close the connections of a test at its end."""
    yield
    while CLIENTS:
        CLIENTS[-1].writer.close()
        with contextlib.suppress(ConnectionError):
            await CLIENTS.pop().writer.wait_closed()


async def client(server: Server) -> Client:
    host, port = server.address.rsplit(":", 1)
    CLIENTS.append(Client(*await asyncio.open_connection(host, int(port))))
    return CLIENTS[-1]


async def create(server: Server, user: str = "ann", **fields: Any) -> dict[str, Any]:
    async with server.client(user) as found:
        made: dict[str, Any] = (await found.post("/tasks", json=WAITING | fields)).json()
        return made


def is_hot(*answers: Got) -> bool:
    """Return whether all of these were given again: their id stands right behind their date, of others much later."""
    return all(answer.headers[1][0] == "X-Request-Id" for answer in answers)


def same(got: Got) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return an answer without what differs from one to the next."""
    kept = [(name, value) for name, value in got.headers if name not in ("Date", "X-Request-Id")]
    return got.status, sorted(kept), got.body


def raw(target: str, **fields: str) -> bytes:
    return request("GET", target, **fields).replace(b"Host: test", b"Host: localhost")


class Asking:
    """One connection on which the same is asked."""

    def __init__(self, found: Client, target: str, **fields: str) -> None:
        self.found, self.data = found, raw(target, **fields)

    async def __call__(self) -> Got:
        self.found.send(self.data)
        return await self.found.answer()


@pytest.mark.parametrize(
    "fields",
    [{}, {"Accept_Encoding": "gzip"}, {"Origin": "https://app.example"}, {"Accept": "application/json"}],
    ids=str,
)
async def test_what_is_given_again_is_what_was_given(database_url: str, fields: dict[str, str]) -> None:
    async with embedded(database_url, cache="memory", cors_origins="https://app.example") as server:
        made = await create(server, description="d" * 3000)
        for target in (f"/tasks/{made['id']}", "/tasks", "/tasks?limit=1&status=new"):
            ask = Asking(await client(server), target, X_Taskd_User="ann", **fields)
            answers = [await ask() for _ in range(5)]
            assert is_hot(answers[-2], answers[-1]), target
            assert len({str(same(answer)) for answer in answers}) == 1
            assert len({answer.get("X-Request-Id") for answer in answers}) == 5
            if "Accept_Encoding" in fields:
                assert b"dddd" in gzip.decompress(answers[-1].body)


async def test_a_change_is_seen_by_the_next_read_whoever_makes_it(server: Server, database_url: str) -> None:
    made = await create(server)
    asks = [Asking(await client(server), target, X_Taskd_User="ann") for target in (f"/tasks/{made['id']}", "/tasks")]
    for number in range(5):
        for ask in asks:
            answers = [await ask() for _ in range(4)]
            # The first asked for something that was not there, the second for the first time.
            assert is_hot(*answers[2:])
        async with server.client("ann") as ann:
            await ann.patch(f"/tasks/{made['id']}", json={"title": f"t{number}"})
        one, listed = json.loads((await asks[0]()).body), json.loads((await asks[1]()).body)
        assert (one["title"], listed["tasks"][0]["title"]) == (f"t{number}", f"t{number}")
    async with embedded(database_url, cache="memory") as other, other.client("ann") as ann:
        [await ask() for ask in asks]
        await ann.post(f"/tasks/{made['id']}/cancel")

        async def told() -> bool:
            return json.loads((await asks[0]()).body)["status"] == "cancelled"

        await eventually(told)
    async with server.client("ann") as ann:
        await ann.delete(f"/tasks/{made['id']}")
    assert (await asks[0]()).status == 404
    assert json.loads((await asks[1]()).body)["tasks"] == []


async def test_each_user_is_given_their_own(server: Server) -> None:
    await create(server, "ann", title="ann's")
    await create(server, "bob", title="bob's")
    found = await client(server)
    for _ in range(4):
        for user in ("ann", "bob"):
            answer = await Asking(found, "/tasks", X_Taskd_User=user)()
            assert [task["owner"] for task in json.loads(answer.body)["tasks"]] == [user]


async def test_a_revoked_token_is_given_nothing(database_url: str) -> None:
    made = await token(database_url)
    async with embedded(database_url, cache="memory", auth="token") as server:
        assert server.app is not None
        assert isinstance(server.app.parts, Parts)
        gate, http, now = server.app.parts.gate, server.app.parts.front.http, [0.0]
        real = gate._believed._clock
        gate._believed._clock = gate._clock = http.clock = lambda: real() + now[0]
        ask = Asking(await client(server), "/tasks", Authorization=f"Bearer {made}")
        answers = [await ask() for _ in range(4)]
        assert is_hot(*answers[2:])
        await revoke(database_url, "ann")
        now[0] = BELIEVED
        assert (await ask()).status == 401


async def test_who_has_a_limit_is_charged_for_each(database_url: str) -> None:
    made = await token(database_url)
    root = await token(database_url, "root", Role.ADMIN)
    async with embedded(database_url, cache="memory", auth="token", rate_limit=3) as server:
        ask = Asking(await client(server), "/tasks", Authorization=f"Bearer {made}")
        answers = [await ask() for _ in range(8)]
        assert 429 in [answer.status for answer in answers]
        assert all(answer.get("RateLimit-Limit") == "3" for answer in answers)
        answers = [await Asking(ask.found, "/tasks", Authorization=f"Bearer {root}")() for _ in range(8)]
        assert [answer.status for answer in answers] == [200] * 8


async def test_each_is_counted_and_timed_and_is_a_read_of_the_cache(server: Server) -> None:
    assert server.app is not None
    catalog = server.app.parts.catalog
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
    for _ in range(10):
        await ask()
    assert catalog.http_requests.labels("GET", "/tasks/{id}", "200").value == 10
    assert catalog.http_seconds.labels("GET", "/tasks/{id}").count == 10
    reads = {result: catalog.cache_requests.labels("task", result).value for result in ("hit", "miss")}
    assert reads == {"hit": 9, "miss": 1}


@pytest.mark.parametrize(
    "fields", [{"X_Request_Id": "mine"}, {"Traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}]
)
async def test_a_request_of_a_kind_of_its_own_is_answered_by_itself(server: Server, fields: dict[str, str]) -> None:
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann", **fields)
    answers = [await ask() for _ in range(4)]
    assert not any(is_hot(answer) for answer in answers)
    if "X_Request_Id" in fields:
        assert [answer.get("X-Request-Id") for answer in answers] == ["mine"] * 4


async def test_where_each_request_is_logged_each_is(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
    [await ask() for _ in range(3)]
    caplog.set_level(logging.INFO, "taskd.http")
    assert server.app is not None
    http, real = server.app.parts.front.http, server.app.parts.front.http.clock
    http.clock = lambda: real() + SURE_FOR
    [await ask() for _ in range(3)]
    assert [record.getMessage() for record in caplog.records].count(f"GET /tasks/{made['id']} 200") == 3


async def test_bytes_that_come_in_pieces_or_together_are_read_as_ever(server: Server) -> None:
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
    whole = [await ask() for _ in range(3)]
    ask.found.send(ask.data * 3)
    together = [await ask.found.answer() for _ in range(3)]
    ask.found.send(ask.data[:20])
    await asyncio.sleep(0)
    ask.found.send(ask.data[20:] + ask.data[:30])
    pieces = [await ask.found.answer()]
    ask.found.send(ask.data[30:])
    pieces.append(await ask.found.answer())
    assert len({str(same(answer)) for answer in (*whole, *together, *pieces)}) == 1


async def test_a_gateway_gives_again_what_is_in_its_own_cache(database_url: str) -> None:
    async with embedded(database_url, grpc="127.0.0.1:0") as server:
        assert server.app is not None
        async with gateway(server.app.grpc_address, cache="memory") as front:
            made = await create(front)
            ask = Asking(await client(front), f"/tasks/{made['id']}", X_Taskd_User="ann")
            assert is_hot(*[await ask() for _ in range(4)][2:])
            async with front.client("ann") as ann:
                await ann.patch(f"/tasks/{made['id']}", json={"title": "new"})
            assert json.loads((await ask()).body)["title"] == "new"


async def test_without_a_cache_nothing_is_given_again(database_url: str) -> None:
    async with embedded(database_url, cache="off") as server:
        made = await create(server)
        ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
        assert not any([is_hot(await ask()) for _ in range(4)])


async def test_what_stands_behind_the_beginning_of_a_request_is_its_rest(server: Server) -> None:
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
    assert is_hot(*[await ask() for _ in range(4)][2:])
    # Together with a whole request, so that the parser has it and no answer is due.
    ask.found.send(raw("/healthz") + b"GET /livez HTTP/1.1\r\nX: ")
    assert (await ask.found.answer()).status == 200
    got = await ask()
    assert (got.status, made["id"].encode() in got.body) == (200, False)
    assert set(got.json()) == set((await Asking(ask.found, "/livez")()).json())


async def test_a_request_with_a_body_is_read_to_its_end(server: Server) -> None:
    made = await create(server)
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann", Content_Length="2")
    for _ in range(5):
        ask.found.send(ask.data)
        ask.found.send(b"{}")
        assert (await ask.found.answer()).status == 200
    ask.found.send(ask.data)
    assert server.app is not None
    connections = server.app.parts.front.http._connections
    await eventually(lambda: any(isinstance(one, Connection) and one.phase is Phase.BODY for one in connections))
    ask.found.send(b"{}")
    assert not is_hot(await ask.found.answer())


async def test_an_answer_that_is_not_taken_counts_though_it_is_given_again(server: Server) -> None:
    assert server.app is not None
    made = await create(server, payload={"text": "x" * 60_000})
    ask = Asking(await client(server), f"/tasks/{made['id']}", X_Taskd_User="ann")
    assert is_hot(*[await ask() for _ in range(4)][2:])
    http, catalog = server.app.parts.front.http, server.app.parts.catalog
    connection = next(one for one in http._connections if isinstance(one, Connection))
    answered, before = catalog.http_requests.labels("GET", "/tasks/{id}", "200"), 4
    # One after the other: those that come together are no bytes that are known.
    while connection._writable is None:
        ask.found.send(ask.data)
        before += 1
        await eventually(lambda wanted=before: answered.value == wanted)
    assert http.unsent.held
    assert connection.phase is Phase.ANSWER
    for _ in range(before - 4):
        assert (await ask.found.answer()).status == 200
    await eventually(lambda: not http.unsent.held)
    assert (await ask()).status == 200
