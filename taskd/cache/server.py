"""One Redis or Valkey server, and this process's few connections to it.

The client's own time limits and retries are off: an exchange has one limit for all that it does, connecting included,
and is tried once.

Each new connection asks for the server's run, also one that the client makes by itself in place of a broken one. A
server that was started anew, or another in its place, may be at an older state than the one before it: it is never
taken for the same.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from taskd.cache.patience import Patience
from taskd.errors import ConfigError

try:
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Refused
    from redis.exceptions import RedisError
except ImportError:
    raise ConfigError("TASKD_CACHE: a cache in Redis needs its client: pip install 'taskd[redis]'") from None

CONNECT_WITHIN = 1.0
"""Seconds for the duty to connect: several round trips, with TLS and a password, and no reader waits for it."""

CONNECTIONS = 2
"""One for looks and one for the outbox, and one more at the most while one of them is given up."""

AWAY = (RedisError, OSError, EOFError)
"""What says that the server can't be used now; `TimeoutError` is an `OSError`."""


class Server:
    """Does what is asked of it, or raises one of `AWAY`.

    Args:
        url: of the server, as redis-py takes it (`redis://`, `rediss://`, `unix://`).
        timeout: seconds for an answer.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.run: str | None = None
        """Names the run of the server that answers since `connect`."""
        self._timeout = timeout
        self._pool = _pool(url, self._greet)
        self._password = str(self._pool.connection_kwargs.get("password") or "")
        self._redis = Redis(connection_pool=self._pool)

    async def connect(self) -> None:
        """Drop the connections that there are, and make new ones."""
        await self.disconnect()
        self.run = None
        lines: list[Any] = []
        try:
            async with Patience(CONNECT_WITHIN):
                while len(lines) < CONNECTIONS:
                    lines.append(await self._pool.get_connection())
        finally:
            for line in lines:
                await self._pool.release(line)

    async def disconnect(self) -> None:
        """Drop all connections. Safe twice."""
        # What was never sent to a stopped server keeps the closing waiting; it is given up.
        with contextlib.suppress(*AWAY):
            async with Patience(self._timeout):
                await self._pool.disconnect()

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one round trip and return their answers; the first error among them is raised."""
        async with Patience(self._timeout):
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def reason(self, error: BaseException) -> str:
        """Return what an error means to people, on one line and without the password."""
        if isinstance(error, TimeoutError):
            return f"Redis: no answer within {self._timeout * 1000:g} ms"
        said = " ".join(str(error).split()) or type(error).__name__
        if self._password:
            said = said.replace(self._password, "***")
        return f"Redis: {said[:200]}"

    async def _greet(self, connection: Any) -> None:
        """Begin a connection, also one that the client makes in place of a broken one."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        server = _run_id(await connection.read_response())
        if self.run is None:
            self.run = server
        if server != self.run:
            raise Refused("another server answers than before")


def _pool(url: str, greet: Callable[[Any], Awaitable[None]]) -> Any:
    """Return a pool for a URL; its connections are not connected."""
    ours: dict[str, Any] = {
        "max_connections": CONNECTIONS + 1,
        "redis_connect_func": greet,
        # `Patience` limits each exchange; the client's own limits start a task for each write.
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_WITHIN,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        # Redis 5 has no other.
        "protocol": 2,
        "decode_responses": False,
    }
    try:
        # Not typed well enough by the client to be called with types.
        pool: Any = ConnectionPool(**{**parse_url(url), **ours})
        # An option that no connection takes would be seen only when the first one is made.
        pool.make_connection()
    except (ValueError, TypeError, RedisError):
        # What they say may quote the password.
        raise ConfigError(
            "TASKD_CACHE: not a URL that Redis' client takes (redis://[user:password@]host:port/0)"
        ) from None
    return pool


def _run_id(info: bytes) -> str:
    """Return what names one run of a server (the section `server` of INFO)."""
    found = re.search(rb"^run_id:(\w+)", info, re.MULTILINE)
    if found is None:
        raise Refused("the server does not tell its run_id")
    return found[1].decode("ascii", "replace")
