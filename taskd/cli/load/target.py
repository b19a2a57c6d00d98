"""Where the load goes: a server's address, who calls, and one kept connection to it at a time."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

from taskd import __version__
from taskd.errors import ConfigError, TaskdError, Unavailable
from taskd.ws.client import ClientSocket, SocketRefused, connect

CONNECT_WITHIN = 10.0
ANSWER_WITHIN = 60.0
"""Seconds; a server that stands still for so long is taken for gone."""

LONGEST_PAUSE = 60.0
"""Seconds for which a server is obeyed that asks to be left alone; what it says beyond is taken for so much."""


T = TypeVar("T")


class Refused(TaskdError):
    """The server does not do what is asked of it, or not for this caller."""


class Answer(NamedTuple):
    """What the server said to one request."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """Return the body as a value.

        Raises:
            Unavailable: it is no JSON, so whoever answered is no taskd.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Unavailable("what answers there is no taskd: it does not speak JSON") from None

    @property
    def detail(self) -> str:
        """What the server says of an error, in its words."""
        try:
            problem = json.loads(self.body)
            return str(problem.get("detail") or problem["title"])
        except (ValueError, AttributeError, KeyError):
            return "without a word"

    @property
    def pause(self) -> float:
        """The seconds for which the server wants to be left alone."""
        try:
            seconds = float(self.headers.get(b"retry-after", b"1"))
        except ValueError:
            seconds = 1.0
        return min(seconds, LONGEST_PAUSE) if math.isfinite(seconds) and seconds > 0 else 1.0


class Target:
    """A server, and who calls it.

    Args:
        url: `http://host:port` or `https://…`.
        token: the caller's, or None.
        user: their name, for a server that takes it by their word.
        context: how the server proves who it is; None: as the system trusts.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, url: str, token: str | None, user: str | None, context: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"--server: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError("--server: must be the URL of a taskd's HTTP, as http://127.0.0.1:8080")
        if context is not None and parts.scheme == "http":
            raise ConfigError("--ca, --cert and --key want a --server with https://")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.host = parts.hostname
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.context = context or (ssl.create_default_context() if parts.scheme == "https" else None)
        self.limited = 0
        """Requests so far that the server did not want yet (429)."""
        self._netloc = parts.netloc.rpartition("@")[2]
        self._headers = {"User-Agent": f"taskd-bench/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif user is not None:
            self._headers["X-Taskd-User"] = user
        _refuse_control("--user or the token", "".join(self._headers.values()))

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """Return a request's bytes; `body` is a JSON value."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        if body is None:
            return f"{head}\r\n".encode("latin-1")
        data = json.dumps(body).encode()
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        return head.encode("latin-1") + data

    async def socket(self, client: str, on_text: Callable[[bytes], None]) -> ClientSocket:
        """Open a WebSocket to the event log.

        Raises:
            Refused: the server does not want it.
            Unavailable: there is no server.
        """
        query = {"client": client}
        if "X-Taskd-User" in self._headers:
            query["user"] = self._headers["X-Taskd-User"]
        url = f"{'ws' if self.context is None else 'wss'}{self.url[self.url.index(':') :]}/ws?{urlencode(query)}"
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                return await connect(url, self.host, self.port, self._headers, on_text, self.context)
        except SocketRefused as error:
            raise Refused(f"the server refuses a socket: {error}") from None
        except (OSError, TimeoutError) as error:
            raise unreachable(self, error) from None


def _refuse_control(what: str, text: str) -> None:
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{what}: must be printable ASCII")


def unreachable(target: Target, error: Exception) -> Unavailable:
    """Return the error that a server can't be reached."""
    why = str(error) or "it does not answer"
    return Unavailable(f"no taskd answers on {target.url}: {why}")


class Caller(asyncio.Protocol):
    """One kept connection, which has one request at a time. To be used in `async with`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._buffer = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # What was sent may be a change: with its answer it is known to be over, and can be found and undone.
        if self._answer is not None:
            await asyncio.wait({self._answer}, timeout=5.0)
        if self._transport is not None:
            self._transport.abort()

    async def send(self, request: bytes) -> Answer:
        """Send a request, obey a 429 as often as it comes, and return the answer.

        Raises:
            Unavailable: the server is not there, or no longer.
        """
        while True:
            answer = await self._once(request)
            if answer.status != 429:
                return answer
            self._target.limited += 1
            await asyncio.sleep(answer.pause)

    async def ready(self) -> None:
        """Connect, if it is not connected."""
        await self._guarded(self._connect(), CONNECT_WITHIN)

    async def call(self, method: str, path: str, body: object = None) -> Answer:
        """Make a request, and return its answer."""
        return await self.send(self._target.request(method, path, body))

    async def _once(self, request: bytes) -> Answer:
        await self.ready()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._guarded(asyncio.shield(self._answer), ANSWER_WITHIN)

    async def _guarded(self, waits: Awaitable[T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await waits
        except (OSError, TimeoutError) as error:
            raise unreachable(self._target, error) from None

    async def _connect(self) -> None:
        while self._transport is not None:
            if not self._transport.is_closing():
                return
            await asyncio.sleep(0)  # its end is told in the next turn
        target, loop = self._target, asyncio.get_running_loop()
        self._buffer.clear()
        name = target.host if target.context is not None else None
        await loop.create_connection(
            lambda: self, target.host, target.port, ssl=target.context, server_hostname=name
        )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        try:
            status, headers = _read_head(bytes(self._buffer[:end]))
            body = _read_body(headers, self._buffer, end + 4, status)
        except ValueError:
            self._fail(ConnectionError("what answers there does not speak HTTP"))
            return
        if body is not None:
            self._buffer.clear()
            if headers.get(b"connection", b"").lower() == b"close" and self._transport is not None:
                self._transport.abort()
            self._settle(Answer(status, headers, body))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(error or ConnectionResetError("the connection was closed"))

    def _settle(self, answer: Answer) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail(self, error: Exception) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error if isinstance(error, OSError) else ConnectionError(str(error)))
            # Whoever waited may be gone.
            waiting.exception()
        if self._transport is not None:
            self._transport.abort()


def _read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    version, status, *_ = first.split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError(first)
    fields = (line.partition(b":") for line in lines)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in fields}


def _read_body(headers: dict[bytes, bytes], buffer: bytearray, at: int, status: int) -> bytes | None:
    """Return an answer's body, or None while it is not whole. A proxy may have cut it into chunks (RFC 9112 7.1)."""
    if status in (204, 304):
        return b""
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        end = at + int(headers[b"content-length"]) if b"content-length" in headers else at
        return bytes(buffer[at:end]) if len(buffer) >= end else None
    found = b""
    while (line := buffer.find(b"\r\n", at)) >= 0:
        size = int(bytes(buffer[at:line]).partition(b";")[0], 16)
        at = line + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            return found
        found += bytes(buffer[line + 2 : at - 2])
    return None


def path_of(task_id: str) -> str:
    """Return a task's path."""
    return f"/tasks/{quote(task_id, safe='')}"
