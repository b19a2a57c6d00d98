"""Who gets a socket, and what the others are told."""

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from taskd import errors
from taskd.ws.handshake import STATUS
from tests.ws.serving import Serving, receive, serving

HEAD = (
    b"GET %b HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)
VERSION = b"Sec-WebSocket-Version: 13\r\n"


async def ask(served: Serving, target: bytes = b"/ws", fields: bytes = VERSION) -> tuple[bytes, dict[str, Any]]:
    reader, writer = await served.raw()
    writer.write(HEAD % (target, fields))
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.read() if b" 101 " not in head else b"{}"
    writer.close()
    await writer.wait_closed()
    problem: dict[str, Any] = json.loads(body)
    return head, problem


async def test_an_open_socket_is_greeted_first() -> None:
    async with serving() as served, served.socket("bob", client="tab-1") as socket:
        assert await receive(socket) == {
            "type": "welcome", "user": "bob", "client": "tab-1", "cursor": served.cursor(0), "recovered": None,
        }  # fmt: skip
        assert served.hub.connections == 1


async def test_the_client_is_default_if_it_has_no_name() -> None:
    async with serving() as served, served.socket() as socket:
        assert (await receive(socket))["client"] == "default"


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (b"/ws?client=a%20b", ["client"]),
        (b"/ws?client=", ["client"]),
        (b"/ws?client=" + b"a" * 65, ["client"]),
        (b"/ws?client=%ff", ["client"]),
        (b"/ws?client=a&client=b", ["client"]),
        (b"/ws?after=nonsense", ["after"]),
        (b"/ws?after=", ["after"]),
        (b"/ws?user=%00", ["user"]),
        (b"/ws?aftre=x&client=%21", ["aftre", "client"]),
    ],
)
async def test_a_bad_query_is_refused_before_the_upgrade(target: bytes, fields: list[str]) -> None:
    async with serving() as served:
        head, problem = await ask(served, target, VERSION + b"X-Request-Id: mine\r\n")
        assert head.startswith(b"HTTP/1.1 422 ")
        assert b"Content-Type: application/problem+json\r\n" in head
        assert b"X-Request-Id: mine\r\n" in head
        assert problem["type"] == "/problems/validation"
        assert problem["request_id"] == "mine"
        assert [fault["field"] for fault in problem["errors"]] == fields
        assert (served.hub.connections, served.hub.opened, served.hub.refused) == (0, 0, 1)


@pytest.mark.parametrize(
    ("target", "fields", "status", "says"),
    [
        (b"/ws?user=nobody", VERSION, b"401", b"WWW-Authenticate: Bearer"),
        (b"/ws", VERSION + b"Content-Length: 3\r\n", b"400", b""),
        (b"/ws", VERSION + b"Origin: https://evil.example\r\n", b"403", b""),
        (b"/ws", VERSION + b"Origin: null\r\n", b"403", b""),
        (b"/ws", VERSION + b"Origin: http://example.org:81\r\n", b"403", b""),
        (b"/ws", b"Sec-WebSocket-Version: 12\r\n", b"426", b"Sec-WebSocket-Version: 13"),
        (b"/ws", b"", b"426", b"Upgrade: websocket"),
        (b"/ws", VERSION + b"Sec-WebSocket-Protocol: ,,;\r\n", b"400", b""),
        (b"/ws", VERSION + b"X-Long: " + b"x" * 9000 + b"\r\n", b"400", b""),
    ],
)
async def test_a_bad_handshake_is_refused_with_the_reason(
    target: bytes, fields: bytes, status: bytes, says: bytes
) -> None:
    async with serving() as served:
        head, problem = await ask(served, target, fields)
        assert head.startswith(b"HTTP/1.1 " + status)
        assert says in head
        assert problem["status"] == int(status)
        assert problem["detail"]
        assert served.hub.connections == 0


@pytest.mark.parametrize("origin", [b"http://example.org", b"https://EXAMPLE.org", b"https://app.example"])
async def test_pages_of_the_server_and_configured_ones_may_connect(origin: bytes) -> None:
    async with serving(origins=("https://app.example",)) as served:
        head, _ = await ask(served, fields=VERSION + b"Origin: " + origin + b"\r\nX-Request-Id: a b\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"X-Request-Id: " in head
        assert b"a b" not in head


async def test_all_pages_may_connect_if_that_is_configured() -> None:
    options = {"origin": Origin("https://evil.example")}
    async with serving(origins=("*",)) as served, served.socket(options=options) as socket:
        await receive(socket)


async def test_the_subprotocol_is_picked_and_the_token_beside_it_is_not() -> None:
    offered = [Subprotocol("bearer.tk_secret"), Subprotocol("taskd.v1")]
    async with serving() as served:
        async with served.socket(options={"subprotocols": offered}) as socket:
            assert socket.subprotocol == "taskd.v1"
        async with served.socket(options={"subprotocols": offered[:1]}) as socket:
            assert socket.subprotocol is None


async def test_compression_is_not_agreed_to() -> None:
    async with serving() as served, served.socket(options={"compression": "deflate"}) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_nothing_is_accepted_after_the_stop() -> None:
    async with serving() as served:
        await served.hub.stop()
        with pytest.raises(InvalidStatus) as caught:
            await served.socket()
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["Retry-After"] == "1"


async def test_a_refused_client_that_stays_is_dropped() -> None:
    async with serving() as served:
        reader, writer = await served.raw()
        writer.write(HEAD % (b"/ws?x=1", VERSION))
        await reader.read()
        assert served.hub.sockets == 1
        served.advance(5)
        writer.close()


def test_every_error_has_a_status() -> None:
    def tree(cls: type[errors.TaskdError]) -> set[type[errors.TaskdError]]:
        return {cls}.union(*(tree(sub) for sub in cls.__subclasses__()))

    assert {cls for cls in tree(errors.TaskdError) if cls.__module__ == errors.__name__} == set(STATUS)
