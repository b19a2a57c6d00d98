"""Taskd: how the parts of one process start, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from taskd.config import Settings, validate_start
from taskd.domain.retry import RetryPolicy
from taskd.errors import StartError
from taskd.runtime.loading import no_collection
from taskd.service.local import LocalTasks
from taskd.worker.registry import Registry

if TYPE_CHECKING:
    from taskd.gateway import Gateway
    from taskd.parts import Parts
    from taskd.store.embedded import EmbeddedPostgres

logger = logging.getLogger("taskd")


class Taskd:
    """A task server, or a part of one, in the caller's event loop.

    `async with Taskd(database_url="postgresql://…") as app:` starts all parts of its role and stops them in order;
    inside, `app.tasks` has the calls. Settings are those of the command line, as keyword arguments.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """

    def __init__(self, **settings: object) -> None:
        self._init(Settings.from_kwargs(**{"auth": "none", "grpc": "off", **settings}))

    @classmethod
    def with_settings(cls, settings: Settings) -> Self:
        """Return a Taskd of settings that were read already."""
        app = cls.__new__(cls)
        app._init(settings)
        return app

    def _init(self, settings: Settings) -> None:
        validate_start(settings)
        self.settings = settings
        self.registry = Registry()
        self._parts: Parts | Gateway | None = None
        self._embedded: EmbeddedPostgres | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._hurried = False

    def handler(
        self,
        kind: str,
        *,
        timeout: float | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that makes a function the handler of a kind; see `worker.registry`."""

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            self.registry.add(kind, function, timeout, max_attempts, retry)
            if self._parts is not None:
                self._parts.catalog.kinds.register([kind])
            return function

        return add

    @property
    def parts(self) -> Parts | Gateway:
        """What it is made of, while it runs."""
        if self._parts is None:
            raise StartError("taskd is not started")
        return self._parts

    @property
    def tasks(self) -> LocalTasks:
        """The task calls, for the program that embeds this."""
        return LocalTasks(self.parts.tasks)

    @property
    def http_address(self) -> str | None:
        """Where HTTP is served, as `host:port`."""
        return self.parts.http_address

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC is served, as `host:port`; None: nowhere."""
        return self.parts.grpc_address

    @property
    def data_dir(self) -> Path | None:
        """Where the embedded PostgreSQL keeps its data; None: the database is another."""
        return None if self._embedded is None else self._embedded.directory

    @property
    def failed(self) -> asyncio.Future[None]:
        """Gets an exception when a part has died; then stop."""
        return self.parts.supervisor.failed

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all parts, in the order of floors; ready at the end.

        Raises:
            ConfigError, StartError, Unavailable: what is missing; call `stop` then.
        """
        for module in self.settings.handlers:
            self.registry.load(module)
        self._parts = await self._make()
        await self._parts.start()

    async def _make(self) -> Parts | Gateway:
        # Each imported only where it is used: a gateway has no database, and others need no gRPC.
        if self.settings.upstream is not None:
            with no_collection():
                from taskd.gateway import Gateway

                return Gateway(self.settings, self.settings.upstream)
        url = await self._database_url()
        with no_collection():
            from taskd.parts import Parts

            return Parts(self.settings, url, self.registry)

    def reload(self) -> None:
        """Read the certificates again, after they were renewed; who is connected stays so.

        Raises:
            ConfigError: they are wrong; those from before stay in use.
        """
        self.parts.reload()

    def hurry(self) -> None:
        """Wait for no running task at the end, now or when it comes."""
        self._hurried = True
        if self._parts is not None:
            self._parts.hurry()

    async def stop(self) -> None:
        """Stop all parts in order, once; safe twice, and before `start`. Who is cancelled here leaves, it goes on."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        stopping = self._stopping
        await asyncio.shield(stopping)
        self._stopping = None

    async def _stop(self) -> None:
        if self._parts is not None:
            await self._parts.stop(lambda seconds: 0 if self._hurried else seconds)
            self._parts = None
        if self._embedded is not None:
            await self._embedded.stop()
            self._embedded = None

    async def _database_url(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database_url
        # Imported only where it is used: most processes have a database elsewhere.
        from taskd.store.embedded import EmbeddedPostgres

        self._embedded = EmbeddedPostgres(self.settings.data_dir, self.settings.pg_bin, self._database_died)
        return await self._embedded.start()

    def _database_died(self) -> None:
        if self._parts is not None and not self.failed.done():
            logger.critical("the embedded PostgreSQL has ended")
            self.failed.set_exception(StartError("the embedded PostgreSQL has ended"))
            self.failed.exception()
