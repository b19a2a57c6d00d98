"""Every route, asked by every role: a call without a rule, or one that lets in who it is not for, fails here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from taskd import Taskd
from taskd.config import Settings
from taskd.domain.access import Access
from taskd.domain.model import Role
from taskd.web.application import routes
from taskd.web.router import Route
from tests.fronts import gateway
from tests.running import Server, embedded
from tests.tokens import token
from tests.waiting import eventually

NOBODY: Any = None
ROUTES = routes(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY)
ID = "01890000-0000-7000-8000-000000000000"

# As the contract has it (section 7), written down anew: not as the routes themselves say.
OPEN = {"/healthz", "/livez", "/readyz", "/", "/dashboard.js", "/dashboard.css"}
METRICS = {"/metrics"}
ANY_TOKEN = {"/openapi.json"}


def allowed(path: str) -> set[Role]:
    """Return the roles that a path is for."""
    if path in METRICS:
        return {Role.METRICS, Role.ADMIN}
    return set(Role) if path in ANY_TOKEN else {Role.USER, Role.ADMIN}


def test_every_route_has_a_rule() -> None:
    assert all(isinstance(route.access, Access) for route in ROUTES)
    assert {route.path for route in ROUTES if route.access is Access.OPEN} == OPEN


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with embedded(database_url, auth="token") as found:
        yield found


async def ask(client: httpx.AsyncClient, route: Route) -> int:
    """Make a call, with a body that its handler would refuse; return the status."""
    path = route.path.replace("{id}", ID)
    async with client.stream(route.method, path, headers={"Content-Type": "application/json"}) as answer:
        # A stream does not end.
        return answer.status_code


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_route_is_for_its_roles_only(server: Server, database_url: str, route: Route) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers={"X-Taskd-User": "root"}) as nobody:
        status = await ask(nobody, route)
        assert status == (200 if route.path in OPEN else 401), "without a token"
    for role in Role:
        async with server.client(token=await token(database_url, f"a-{role}", role)) as client:
            status = await ask(client, route)
        if route.path in OPEN or role in allowed(route.path):
            assert status not in (401, 403, 500), role
        else:
            assert status == 403, role


async def test_what_there_is_not_is_told_to_who_is_known(server: Server, database_url: str) -> None:
    known = await token(database_url)
    async with httpx.AsyncClient(base_url=server.url) as nobody, server.client(token=known) as ann:
        for method, path, status in (("GET", "/nothing", 404), ("PUT", "/tasks", 405), ("OPTIONS", "/tasks", 204)):
            assert (await nobody.request(method, path)).status_code == 401
            assert (await ann.request(method, path)).status_code == status


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer tk_wrong"},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"Authorization": "Bearer {token} more"},
        {"Authorization": "Bearer {token}, Bearer {token}"},
        {"X-Taskd-User": "ann"},
        {"Cookie": "token={token}"},
        {"Sec-WebSocket-Protocol": "bearer.{token}"},
    ],
    ids=str,
)
async def test_a_token_counts_in_its_own_place_only(
    server: Server, database_url: str, fields: Mapping[str, str]
) -> None:
    made = await token(database_url)
    async with httpx.AsyncClient(base_url=server.url) as client:
        headers = {name: value.format(token=made) for name, value in fields.items()}
        answer = await client.get("/tasks", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["type"] == "/problems/unauthenticated"
        assert "tk_" not in answer.text.replace("tk_…", "")
        # Nor is there a place for one in the address.
        assert (await client.get("/tasks", params={"token": made})).status_code == 401
        good = await client.get("/tasks", headers={"Authorization": f"bEARER   {made}"})
        assert good.status_code == 200


async def test_the_word_of_a_caller_is_no_parameter_where_tokens_count(server: Server, database_url: str) -> None:
    async with server.client(token=await token(database_url)) as ann:
        answer = await ann.get("/tasks?user=bob")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "user")
        made = await ann.post("/tasks", json={"title": "Mine"}, headers={"X-Taskd-User": "bob"})
        assert made.json()["owner"] == "ann"


async def test_the_description_says_how_to_be_known(server: Server, database_url: str) -> None:
    async with server.client(token=await token(database_url)) as ann:
        document = (await ann.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation.get("security") == (None if path in OPEN else [{"token": []}]), path


async def test_a_process_that_only_works_lets_in_who_may_see_its_metrics(database_url: str) -> None:
    async with embedded(database_url, auth="token", role="worker", handlers="taskd.worker.samples") as server:
        async with httpx.AsyncClient(base_url=server.url) as nobody:
            assert (await nobody.get("/readyz")).status_code == 200
            assert (await nobody.get("/metrics")).status_code == 401
        async with server.client(token=await token(database_url, "prometheus", Role.METRICS)) as prometheus:
            assert (await prometheus.get("/metrics")).status_code == 200
        async with server.client(token=await token(database_url)) as ann:
            assert (await ann.get("/metrics")).status_code == 403


async def test_callers_have_a_limit_and_are_told_of_it(database_url: str) -> None:
    async with embedded(database_url, auth="token", rate_limit=0.1) as server:
        async with server.client(token=await token(database_url)) as ann:
            first, second = await ann.get("/tasks"), await ann.get("/nothing")
        async with server.client(token=await token(database_url)) as other:
            assert (await other.get("/tasks")).status_code == 200
        assert (first.status_code, second.status_code) == (200, 429)
        told = [(one.headers["RateLimit-Limit"], one.headers["RateLimit-Remaining"]) for one in (first, second)]
        assert told == [("1", "0"), ("1", "0")]
        assert 0 < int(second.headers["RateLimit-Reset"]) <= 10
        assert 0 < int(second.headers["Retry-After"]) <= 10
        assert second.json()["type"] == "/problems/rate-limited"


async def test_a_gateway_has_no_limit_of_its_own_before_its_upstream(database_url: str) -> None:
    itself = await token(database_url, "the gateway", Role.ADMIN)
    users = [await token(database_url, f"user{number}") for number in range(5)]
    async with (
        embedded(database_url, auth="token", grpc="127.0.0.1:0", rate_limit=1) as server,
        gateway(server.app.grpc_address, auth="token", upstream_token=itself) as front,  # type: ignore[union-attr]
    ):
        for made in users:
            async with front.client(token=made) as client:
                assert (await client.get("/tasks")).status_code == 200


async def test_refusals_tell_of_the_limit_too(database_url: str) -> None:
    async with embedded(database_url, auth="token", rate_limit=0.3) as server:
        made = await token(database_url, "prometheus", Role.METRICS)
        async with server.client(token=made) as client:
            refused = await client.get("/tasks")
        assert (refused.status_code, refused.headers["RateLimit-Remaining"]) == (403, "0")
        with pytest.raises(InvalidStatus) as caught:
            await server.socket(token=made)
        answer = caught.value.response
        assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (429, "0")
        assert int(answer.headers["Retry-After"]) in (3, 4)


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8080", True),
        ("127.8.8.8", True),
        ("[::1]:8080", True),
        ("LocalHost:8080", True),
        ("tasks.localhost", True),
        ("app.example:8080", True),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
async def test_where_callers_are_believed_a_name_of_somebody_elses_is_no_name_of_the_server(
    database_url: str, host: str, fine: bool
) -> None:
    async with embedded(database_url, cors_origins="https://app.example") as server, server.client() as ann:
        headers = {"Host": host, "Origin": f"http://{host}"}
        answer = await ann.get("/tasks", headers=headers)
        assert answer.status_code == (200 if fine else 403)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        async with ann.stream("GET", "/ws", headers=headers | upgrade | key) as socket:
            assert socket.status_code == (101 if fine else 403)


async def test_a_user_has_so_many_streams(database_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded(database_url, auth="token", ws_connections_per_user=2))
        ann = await stack.enter_async_context(server.client(token=await token(database_url)))
        other = await stack.enter_async_context(server.client(token=await token(database_url, "bob")))
        first = contextlib.AsyncExitStack()
        await first.enter_async_context(ann.stream("GET", "/events"))
        await stack.enter_async_context(ann.stream("GET", "/events"))
        refused = await ann.get("/events")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        await stack.enter_async_context(other.stream("GET", "/events"))
        await first.aclose()

        async def again() -> bool:
            async with ann.stream("GET", "/events") as answer:
                return answer.status_code == 200

        await eventually(again)


async def test_who_guesses_tokens_is_held_up(database_url: str) -> None:
    async with embedded(database_url, auth="token", trusted_proxies="127.0.0.1") as server:
        good = await token(database_url)
        async with server.client(token=good) as ann:
            assert (await ann.get("/tasks")).status_code == 200
            async with server.client(token="tk_" + "0" * 43) as guess:
                elsewhere = {"X-Forwarded-For": "203.0.113.9"}
                statuses = [(await guess.get("/tasks", headers=elsewhere)).status_code for _ in range(40)]
                # By the word of a proxy that is trusted, it is not this address that guesses.
                assert (await guess.get("/tasks")).status_code == 401
            assert (await ann.get("/tasks", headers=elsewhere)).status_code == 200
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429


def test_an_embedding_program_is_asked_for_no_token() -> None:
    assert Taskd(database_url="postgresql://nowhere").settings.auth == "none"
    assert Settings().auth == "token"
