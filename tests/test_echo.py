"""The harness for foreign suites: `python -m tests.echo`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.echo import serve

TEXTS = ["", "hello", "привет", "x" * 65_535, "x" * 65_536, "x" * 1_000_000]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("127.0.0.1", 0, stop, listening))
    yield await listening
    stop.set()
    await serving


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_any_method_on_any_path_gets_its_body_back(address: str, method: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.request(method, f"http://{address}/any/path?with=query", content=b"body" * 1000)
    assert answer.status_code == 200
    assert answer.content == b"body" * 1000


async def test_a_chunked_body_comes_back_whole(address: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d," % number

    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{address}/", content=pieces())
    assert answer.content == b"".join([b"%d," % number for number in range(100)])


async def test_a_socket_on_any_path_sends_each_message_back(address: str) -> None:
    async with connect(f"ws://{address}/any/path", max_size=None) as socket:
        for text in TEXTS:
            await socket.send(text)
            assert await socket.recv() == text
            await socket.send(text.encode())
            assert await socket.recv() == text.encode()
        await socket.send(["frag", "men", "ted"])
        assert await socket.recv() == "fragmented"


async def test_text_that_is_no_utf_8_closes_with_1007(address: str) -> None:
    async with connect(f"ws://{address}/") as socket:
        await socket.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1007


async def test_a_request_for_an_old_version_is_refused(address: str) -> None:
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "8"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address}/", headers={"Connection": "Upgrade", "Upgrade": "websocket"} | key)
    assert (answer.status_code, answer.headers["Sec-WebSocket-Version"]) == (426, "13")


async def test_it_runs_as_a_program() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.echo", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().removeprefix("echo on ").strip()
    async with httpx.AsyncClient() as client:
        assert (await client.put(f"http://{address}/x", content=b"y")).content == b"y"
    process.terminate()
    assert await process.wait() == 0
