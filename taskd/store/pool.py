"""Connections to the database, and statements run on them.

What goes wrong comes out as an error of taskd (`faults`): `Unavailable` when the database is away. Connections are
made as they are needed, so the start waits for one at the most, and an outage heals with the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import asyncpg

from taskd.clock import Clock, monotonic
from taskd.errors import ConfigError, TaskdError, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.store.connections import Connection, Connections, is_lost
from taskd.store.faults import told, translated
from taskd.store.statements import Statement
from taskd.store.timing import Timing

COMMAND_TIMEOUT = 30.0
"""Seconds for one statement, and for getting a connection; afterwards `Unavailable`."""

Row = asyncpg.Record

_COMMIT = Statement("commit", "COMMIT")


def nobody_asked() -> None:
    """Stands for whoever wants to know of commits, when nobody does."""


class Runner(Protocol):
    """What runs statements: a `Database`, or a `Session` inside a transaction."""

    async def fetch(self, statement: Statement | str, *args: Any) -> list[Row]:
        """Return all rows."""

    async def fetchrow(self, statement: Statement | str, *args: Any) -> Row | None:
        """Return the first row, or None."""

    async def fetchval(self, statement: Statement | str, *args: Any) -> Any:
        """Return the first value of the first row, or None."""

    async def execute(self, statement: Statement | str, *args: Any) -> None:
        """Run a statement for its effect."""


class Session:
    """One connection inside a transaction. Methods as in `Runner`."""

    def __init__(self, connection: Connection, timing: Timing) -> None:
        self._connection = connection
        self._timing = timing

    def end(self) -> None:
        """Forget the connection, which is another's from now on."""
        del self._connection

    async def fetch(self, statement: Statement | str, *args: Any) -> list[Row]:
        with _guarded(self._connection), self._timing.of(statement):
            return await self._connection.fetch(_text(statement), *args)

    async def fetchrow(self, statement: Statement | str, *args: Any) -> Row | None:
        with _guarded(self._connection), self._timing.of(statement):
            return await self._connection.fetchrow(_text(statement), *args)

    async def fetchval(self, statement: Statement | str, *args: Any) -> Any:
        with _guarded(self._connection), self._timing.of(statement):
            return await self._connection.fetchval(_text(statement), *args)

    async def execute(self, statement: Statement | str, *args: Any) -> None:
        with _guarded(self._connection), self._timing.of(statement):
            await self._connection.execute(_text(statement), *args)


class Database:
    """A pool of connections to one database. Call `open` first and `close` last.

    Args:
        url: `postgresql://…`, through a pooler or not.
        min_size: connections that are made by `open`, which waits for them; the others come on demand.
        max_size: connections at most. Who finds none free waits, up to `timeout`.
        direct: no pooler stands between. Through one, statements are prepared anew each time, for it may pass each to
            another connection, and no setting is sent that it would refuse.
        timeout: seconds for one statement, and for a connection.
        catalog: where the time of each statement is observed, without the wait for a connection.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        direct: bool = True,
        timeout: float = COMMAND_TIMEOUT,
        catalog: Catalog | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._url = url
        self._min_size = min(min_size, max_size)
        self._max_size = max_size
        self._direct = direct
        self._timeout = timeout
        self._timing = Timing(catalog or Catalog(), clock)
        self._clock = clock
        self._open: Connections | None = None

    @property
    def url(self) -> str:
        """Where it connects to; may hold a password."""
        return self._url

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of them are idle."""
        return (0, 0) if self._open is None else (self._open.size, self._open.idle)

    async def open(self) -> None:
        """Make the first connection. Does nothing when open already.

        Raises:
            Unavailable: the database does not answer; a later call may go well.
            ConfigError: the URL is none, or the server refuses its account or database.
        """
        if self._open is not None:
            return
        try:
            with translated():
                self._open = Connections(await self._connect(), self._timeout, self._clock)
        except Unavailable as error:
            refusal = error.__cause__
            if isinstance(refusal, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
                raise ConfigError(f"database_url: the server refuses it: {refusal}") from None
            raise
        except (asyncpg.ClientConfigurationError, ValueError) as error:
            raise ConfigError(f"database_url: {error}") from None

    async def _connect(self) -> asyncpg.Pool[Row]:
        pool = asyncpg.create_pool(
            self._url,
            # asyncpg restores a floor by a task of its own, which fills the log during an outage: so there is none.
            min_size=0,
            max_size=self._max_size,
            statement_cache_size=200 if self._direct else 0,
            timeout=self._timeout,
            command_timeout=self._timeout,
            reset=_nothing_to_reset,
            server_settings=_server_settings(self._direct),
        )
        await pool
        try:
            first = [await pool.acquire() for _ in range(self._min_size)]
            for connection in first:
                await pool.release(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    async def close(self) -> None:
        """Close all connections, when those in use are done, or after 5 s. Safe twice, and before `open`."""
        connections, self._open = self._open, None
        if connections is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await connections.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connections.terminate()

    async def fetch(self, statement: Statement | str, *args: Any) -> list[Row]:
        """Return all rows."""
        async with self._connection() as connection:
            with self._timing.of(statement):
                return await connection.fetch(_text(statement), *args)

    async def fetchrow(self, statement: Statement | str, *args: Any) -> Row | None:
        """Return the first row, or None."""
        async with self._connection() as connection:
            with self._timing.of(statement):
                return await connection.fetchrow(_text(statement), *args)

    async def fetchval(self, statement: Statement | str, *args: Any) -> Any:
        """Return the first value of the first row, or None."""
        async with self._connection() as connection:
            with self._timing.of(statement):
                return await connection.fetchval(_text(statement), *args)

    async def execute(self, statement: Statement | str, *args: Any) -> None:
        """Run a statement for its effect."""
        async with self._connection() as connection:
            with self._timing.of(statement):
                await connection.execute(_text(statement), *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Run statements in one transaction (read committed): committed at the end, rolled back by an exception."""
        async with self._connection() as connection:
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            session = Session(connection, self._timing)
            try:
                yield session
            except BaseException:
                await transaction.rollback()
                raise
            finally:
                session.end()
            with self._timing.of(_COMMIT):
                await transaction.commit()

    def _connection(self) -> _Use:
        connections = self._open
        if connections is None:
            raise Unavailable("the database is closed here")
        return _Use(connections)


class _Use:
    """One use of a connection, for `async with`; no generator, which would cost more than the rest of it."""

    __slots__ = ("_connections", "_taken")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __aenter__(self) -> Connection:
        with translated():
            self._taken = await self._connections.take()
        return self._taken[0]

    async def __aexit__(self, _: object, error: BaseException | None, trace: object) -> None:
        known = None if error is None else _told(self._taken[0], error)
        await self._connections.give_back(self._taken, well=error is None)
        try:
            if known is not None:
                raise known from error
        finally:
            # Else the error would hold this frame, and this frame the error.
            del error, known


@contextmanager
def _guarded(connection: Connection) -> Iterator[None]:
    """Raise what happens inside as errors of taskd; see `_told`."""
    try:
        yield
    except Exception as error:
        known = _told(connection, error)
        if known is None:
            raise
        raise known from error


def _told(connection: Connection, error: BaseException) -> TaskdError | None:
    """Return the error of taskd that one from a use of a connection is, None if it is none or is one already."""
    if isinstance(error, asyncpg.InternalClientError):
        connection.terminate()
    known = told(error)
    if known is None and isinstance(error, asyncpg.InterfaceError) and is_lost(connection):
        # asyncpg has one class for a connection that was lost and for wrong use of one.
        return Unavailable("the connection to the database was lost")
    return known


def _text(statement: Statement | str) -> str:
    return statement if isinstance(statement, str) else statement.text


async def _nothing_to_reset(_: asyncpg.Connection[Row]) -> None:
    """Spare the round trip that clears a session: no statement here leaves anything in one."""


def _server_settings(direct: bool) -> dict[str, str]:
    settings = {"application_name": "taskd"}
    if direct:
        # Small statements, run often: compiling them costs more than it ever saves. Poolers refuse the setting.
        settings["jit"] = "off"
        # A plan is kept until the next analysis of its tables, and those of a queue can grow a thousandfold until then:
        # what was planned for twenty rows would read all of a hundred thousand, once for each task of a batch.
        settings["enable_seqscan"] = "off"
    return settings
