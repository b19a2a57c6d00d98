"""Nothing that a client sends adds a field to an answer, or an answer to a connection."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.parse

import h11

from tests.fronts import both, served_by
from tests.injection.hostile import TEXTS
from tests.running import Server, embedded

FIELDS = {
    b"access-control-allow-origin", b"access-control-expose-headers", b"allow", b"cache-control", b"connection",
    b"content-length", b"content-security-policy", b"content-type", b"date", b"etag", b"link", b"location",
    b"retry-after", b"upgrade", b"vary", b"x-content-type-options", b"x-request-id",
}  # fmt: skip
"""All that the answers here may have."""

SPLITS = [b"a\r\nX-Injected: 1", b"a\nX-Injected: 1", b"a\rX-Injected: 1", b"a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"a\0b",
          b"a\x0bb", b"\xff\xfe", "a\u560d\u560aX-Injected: 1".encode()]  # fmt: skip
"""The last one is what becomes CR and LF where a character is cut to a byte."""

WHERE = ("X-Request-Id", "Idempotency-Key", "If-Match", "If-None-Match", "X-Taskd-User", "Origin", "traceparent",
         "Last-Event-ID", "Accept", "Accept-Encoding", "Content-Type", "Host", "Authorization",
         "Sec-WebSocket-Protocol", "Sec-WebSocket-Key", "Access-Control-Request-Method")  # fmt: skip


OF_CHANGES = {"Idempotency-Key", "If-Match", "Content-Type"}


async def answers(server: Server, data: bytes) -> list[tuple[h11.Response, bytes]]:
    """Send bytes, and return all answers until the server closes, as a strict client reads them."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(30):
        received = await reader.read()
    writer.close()
    found: list[tuple[h11.Response, bytes]] = []
    while received:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(received)
        answer, body = client.next_event(), b""
        assert isinstance(answer, h11.Response | h11.InformationalResponse), received
        if isinstance(answer, h11.InformationalResponse):
            return found
        while isinstance(event := client.next_event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), received
        found.append((answer, body))
        received = client.trailing_data[0]
    return found


def request(method: str, target: bytes, name: str = "X-Nothing", value: bytes = b"") -> bytes:
    host = b"" if name == "Host" else b"Host: a\r\n"
    body = b'{"title": "t"}' if method == "POST" else b""
    kind = b"" if name == "Content-Type" else b"Content-Type: application/json\r\n"
    line = name.encode() + b": " + value + b"\r\n"
    return b"%b %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n%bConnection: close\r\n\r\n%b" % (
        method.encode(), target, host, kind, len(body), line, body,
    )  # fmt: skip


async def check(server: Server, data: bytes) -> None:
    found = await answers(server, data)
    assert len(found) == 1, data
    for answer, body in found:
        names = {name for name, _ in answer.headers}
        assert names <= FIELDS, data
        assert answer.status_code < 500, (data, body)
        if dict(answer.headers).get(b"content-type") == b"application/problem+json":
            json.loads(body)


async def test_no_field_of_a_request_splits_an_answer(database_url: str) -> None:
    async with embedded(database_url, role="api", cors_origins=["*"]) as server:
        texts = [text.encode() for text in TEXTS.values()]
        latin = [text.encode("latin-1") for text in TEXTS.values() if max(text) <= "\xff"]
        for name, value in itertools.product(WHERE, [*SPLITS, *texts, *latin]):
            method, target = ("POST", b"/tasks") if name in OF_CHANGES else ("GET", b"/tasks?limit=1")
            await _check_split(server, request(method, target, name, value), value)


async def _check_split(server: Server, data: bytes, value: bytes) -> None:
    """A value with a line's end is, to whoever reads the request, two fields, or several requests."""
    if b"\n" not in value:
        return await check(server, data)
    for answer, _ in await answers(server, data):
        assert {name for name, _ in answer.headers} <= FIELDS, data
        assert answer.status_code < 500
    return None


@both
async def test_no_target_splits_an_answer(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api", cors_origins=["*"]) as server, server.client() as client:
        await client.post("/tasks/batch", json={"tasks": [{"title": "x"}] * 3})
        for text in [*TEXTS.values(), *[split.decode("utf-8", "replace") for split in SPLITS]]:
            told = urllib.parse.quote(text, safe="").encode()
            for target in (b"/" + told, b"/tasks/" + told, b"/tasks?" + told + b"=1", b"/tasks?limit=1&user=" + told,
                           b"/search?limit=1&query=x&user=" + told, b"/search?limit=1&query=" + told,
                           b"/ws?client=" + told, b"/metrics?format=" + told):  # fmt: skip
                await check(server, request("GET", target))
            await check(server, request("POST", b"/tasks?user=" + told))


@both
async def test_a_link_leads_to_the_next_page_whatever_was_asked_for(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api") as server, server.client() as client:
        for text in TEXTS.values():
            titles = [f"word {text}"[:200] for _ in range(2)]
            for title in titles:
                assert (await client.post("/tasks", json={"title": title})).status_code == 201
            first = await client.get("/search", params={"query": f"word or {text}", "limit": 1})
            assert first.status_code == 200, first.text
            if first.json()["next_cursor"] is None:
                continue
            assert first.links.keys() == {"next"}
            second = await client.get(first.links["next"]["url"])
            assert second.status_code == 200, (text, second.text)
            assert second.json()["results"][0]["task"]["id"] != first.json()["results"][0]["task"]["id"]


@both
async def test_an_id_of_a_request_comes_back_only_as_it_is_harmless(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api") as server:
        for text in TEXTS.values():
            value = text.encode()
            if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
                continue
            ((answer, _),) = await answers(server, request("GET", b"/tasks", "X-Request-Id", value))
            given = dict(answer.headers)[b"x-request-id"]
            harmless = value.strip().isascii() and b" " not in value.strip() and b"\t" not in value.strip()
            assert (given == value.strip()) == harmless
