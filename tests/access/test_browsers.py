"""Browsers: how they show a token, what pages may do, and which pages may call."""

from __future__ import annotations

import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.deploy.programs import needs
from tests.injection.browser import Page, browser
from tests.running import embedded, receive
from tests.tokens import revoke, token
from tests.waiting import eventually

PAGES = ("/", "/dashboard.js", "/dashboard.css")


async def test_a_socket_takes_the_token_as_the_second_subprotocol_and_picks_the_first(database_url: str) -> None:
    made = await token(database_url)
    async with embedded(database_url, auth="token") as server:
        url = f"ws://{server.address}/ws"
        for offered in (["taskd.v1", f"bearer.{made}"], [f"bearer.{made}", "taskd.v1"]):
            async with connect(url, subprotocols=[Subprotocol(word) for word in offered]) as socket:
                assert (await receive(socket))["user"] == "ann"
                assert socket.subprotocol == "taskd.v1"
        for offered in (["taskd.v1"], ["taskd.v1", "bearer.tk_wrong"], ["taskd.v1", f"Bearer.{made}"], [made]):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, subprotocols=[Subprotocol(word) for word in offered])
            assert caught.value.response.status_code == 401
            assert made not in caught.value.response.body.decode()  # type: ignore[union-attr]


async def test_pages_run_nothing_but_the_servers_files_and_in_no_frame(database_url: str) -> None:
    async with embedded(database_url, auth="token") as server, httpx.AsyncClient(base_url=server.url) as client:
        for path in PAGES:
            answer = await client.get(path)
            policy = dict(part.split(None, 1) for part in answer.headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'",) * 3
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
        for path in (*PAGES, "/tasks", "/nowhere", "/healthz", "/metrics"):
            assert (await client.get(path)).headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("origins", "origin", "fine"),
    [
        ("", None, True),
        ("", "http://{own}", True),
        ("", "http://evil.example", False),
        ("", "null", False),
        ("", "http://{own}.evil.example", False),
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example.evil.example", False),
        ("*", "http://anywhere.example", True),
    ],
)
async def test_a_socket_is_for_pages_of_the_server_and_those_that_are_configured(
    database_url: str, origins: str, origin: str | None, fine: bool
) -> None:
    made = await token(database_url)
    async with embedded(database_url, auth="token", **({"cors_origins": origins} if origins else {})) as server:
        fields = {"Authorization": f"Bearer {made}"}
        if origin is not None:
            fields["Origin"] = origin.format(own=server.address)
        url = f"ws://{server.address}/ws"
        if fine:
            async with connect(url, additional_headers=fields) as socket:
                assert (await receive(socket))["type"] == "welcome"
        else:
            with pytest.raises(InvalidStatus, match="403"):
                await connect(url, additional_headers=fields)


async def test_calls_are_for_pages_that_are_configured(database_url: str) -> None:
    made = await token(database_url)
    async with (
        embedded(database_url, auth="token", cors_origins="https://app.example") as server,
        server.client(token=made) as client,
        httpx.AsyncClient(base_url=server.url) as nobody,
    ):
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        # A browser asks first, and shows no token then.
        for origin, status in (("https://app.example", 204), ("https://evil.example", 401)):
            answer = await nobody.options("/tasks", headers={"Origin": origin} | ask)
            assert answer.status_code == status
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if status == 204 else None)
        answer = await client.get("/tasks", headers={"Origin": "https://app.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        # Cookies are none of it.
        assert "Access-Control-Allow-Credentials" not in answer.headers
        answer = await client.get("/tasks", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers


async def shows(page: Page, expression: str, expected: object) -> bool:
    return bool(await page.value(expression) == expected)


@needs("chromium")
async def test_the_dashboard_asks_for_a_token_and_forgets_one_that_is_revoked(database_url: str) -> None:
    made = await token(database_url)
    async with embedded(database_url, auth="token") as server, browser() as page:
        await page.open(f"{server.url}/")
        await eventually(lambda: shows(page, "document.getElementById('login')?.hidden", False))
        await page.value(f"document.querySelector('#login input').value = {json.dumps(made)}")
        await page.value("document.getElementById('login').requestSubmit()")
        await eventually(lambda: shows(page, "document.getElementById('connection').textContent", "live, as ann"))
        async with server.client(token=made) as ann:
            await ann.post("/tasks", json={"title": "Seen"})
        cell = "document.querySelector('#tasks tr')?.cells[2].textContent"
        await eventually(lambda: shows(page, cell, "Seen"))
        # Whatever a script could read or a log could keep has no token in it.
        assert made not in await page.value("location.href + document.cookie + document.documentElement.outerHTML")
        await revoke(database_url, "ann")
        await eventually(lambda: shows(page, "document.getElementById('login').hidden", False))
        assert await page.value("sessionStorage.length") == 0
        # 401 was meant.
        assert [one for one in page.complaints() if "401" not in one] == []
