"""One kept connection, against servers that answer what these tests say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from taskd.cli.load.target import Caller, Refused, Target
from taskd.errors import ConfigError, Unavailable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answering(asyncio.Protocol):
    """Gives the next answer to whatever ends a head; an empty one closes the connection."""

    def __init__(self, answers: Iterator[bytes], transports: set[asyncio.Transport]) -> None:
        self._answers = answers
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transports.add(self._transport)

    def data_received(self, data: bytes) -> None:
        assert b"\r\n\r\n" in data
        answer = next(self._answers)
        # In two pieces, so that none is whole by luck.
        self._transport.write(answer[: len(answer) // 2])
        asyncio.get_running_loop().call_soon(self._finish, answer)

    def _finish(self, answer: bytes) -> None:
        self._transport.write(answer[len(answer) // 2 :])
        if not answer or b"Connection: close" in answer:
            self._transport.close()


@contextlib.asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[Target]:
    """Serve these answers, one for each request, whatever it asks."""
    rest, transports = iter(answers), set[asyncio.Transport]()
    server = await asyncio.get_running_loop().create_server(lambda: Answering(rest, transports), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target(f"http://127.0.0.1:{port}", None, None)
    finally:
        server.close()
        for transport in transports:
            transport.abort()
        await server.wait_closed()


async def test_one_connection_asks_again_and_again() -> None:
    async with answering(OK, b"HTTP/1.1 204 No Content\r\n\r\n", OK) as target, Caller(target) as caller:
        found = [await caller.call("GET", "/") for _ in range(3)]
        assert [(answer.status, answer.body) for answer in found] == [(200, b"ok"), (204, b""), (200, b"ok")]


async def test_a_proxy_may_cut_an_answer_into_chunks() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    async with answering(chunked, OK) as target, Caller(target) as caller:
        assert (await caller.call("GET", "/")).body == b"abcde"
        assert (await caller.call("GET", "/")).body == b"ok"


async def test_a_connection_that_the_server_closes_is_made_anew() -> None:
    async with answering(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK) as target, Caller(target) as caller:
        assert (await caller.call("GET", "/")).body == b"ok"
        assert (await caller.call("GET", "/")).body == b"ok"


async def test_429_is_obeyed_and_counted() -> None:
    slow = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0.001\r\nContent-Length: 0\r\n\r\n"
    async with answering(slow, slow, OK) as target, Caller(target) as caller:
        assert (await caller.call("GET", "/")).status == 200
        assert target.limited == 2


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_what_is_no_answer_is_no_server(answer: bytes) -> None:
    async with answering(answer) as target, Caller(target) as caller:
        with pytest.raises(Unavailable, match="no taskd answers on http://127"):
            await caller.call("GET", "/")


async def test_a_server_that_speaks_no_json_is_no_taskd() -> None:
    async with answering(OK) as target, Caller(target) as caller:
        with pytest.raises(Unavailable, match="no taskd"):
            (await caller.call("GET", "/")).json()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with 404"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "answered with no HTTP"),
    ],
)
async def test_a_socket_that_is_refused_is_said_so(answer: bytes, words: str) -> None:
    async with answering(answer) as target:
        with pytest.raises(Refused, match=words):
            await target.socket("c", lambda _: None)
    with pytest.raises(Unavailable):
        await target.socket("c", lambda _: None)


def test_who_calls_is_said_by_token_or_by_word() -> None:
    assert b"\r\nAuthorization: Bearer tk_x\r\n" in Target("http://h", "tk_x", "ann").request("GET", "/")
    by_word = Target("https://h:1/", None, "ann").request("POST", "/tasks", {"title": "é"})
    assert by_word.startswith(b"POST /tasks HTTP/1.1\r\nHost: h:1\r\n")
    assert b"\r\nX-Taskd-User: ann\r\n" in by_word
    assert by_word.endswith(b'Content-Length: 19\r\n\r\n{"title": "\\u00e9"}')


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h:port", "http://h/tasks", "http://h?a=b"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--server"):
        Target(url, None, None)


def test_certificates_want_tls() -> None:
    with pytest.raises(ConfigError, match="https://"):
        Target("http://h", None, None, ssl.create_default_context())
