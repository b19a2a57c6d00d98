"""Taskd: the parts of one process, how they start and how they end.

The one place that knows every concrete class. Nothing here is global: two of them may live in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from taskd.config import Settings, validate_start
from taskd.domain.retry import RetryPolicy
from taskd.errors import StartError
from taskd.http1.head import Head
from taskd.http1.target import split
from taskd.runtime.supervisor import Supervisor
from taskd.service.feed import LogFeed
from taskd.service.health import PartsHealth, from_fault
from taskd.service.local import LocalTasks
from taskd.service.tasks import TaskService
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog
from taskd.store.leases import LeaseStore, lock_key
from taskd.store.listener import Listener, Notifier
from taskd.store.migrate import migrate, pending
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.web.application import SOCKET_PATH, application, health_routes, routes
from taskd.web.identity import by_word
from taskd.web.server import HttpServer
from taskd.worker.lease import LeaseKeeper
from taskd.worker.registry import Registry
from taskd.worker.worker import Worker
from taskd.ws.hub import Hub

if TYPE_CHECKING:
    from taskd.store.embedded import EmbeddedPostgres

logger = logging.getLogger("taskd")

ANSWER_WITHIN = 5.0
"""Seconds that requests which are being answered get at the end."""


class Parts:
    """What one process is made of, built for its role and not yet started; in the order of floors."""

    def __init__(self, settings: Settings, url: str, registry: Registry) -> None:
        self.settings = settings
        serves, works = settings.role in ("all", "api"), settings.role in ("all", "worker")
        self.supervisor = Supervisor()
        self.database = Database(url, max_size=10)
        listen_url = settings.database_listen_url or url
        self.listener = Listener(listen_url, self._lock_key, self._woken, self._reconnected, self.supervisor)
        self.notifier = Notifier(self.database, self.supervisor)
        self.claims = ClaimStore(self.database, self.committed)
        self.leases = LeaseStore(self.database, self.committed)
        sweep = SweepStore(
            self.database,
            self.committed,
            retention_days=settings.retention_days,
            event_retention_hours=settings.event_retention_hours,
        )
        self.feed = LogFeed(EventLog(self.database), self.supervisor)
        self.tasks = TaskService(TaskStore(self.database), self.committed)
        self.health = PartsHealth()
        self.worker: Worker | None = None
        self.hub: Hub | None = None
        self.keeper: LeaseKeeper
        name = f"{socket.gethostname()}:{os.getpid()}"
        if works:
            self.worker = Worker(
                self.claims,
                self.leases,
                sweep,
                registry,
                self.supervisor,
                slots=settings.concurrency,
                role=settings.role,
                name=name,
            )
            self.keeper = self.worker.keeper
        else:
            self.keeper = LeaseKeeper(self.leases, self.supervisor, role=settings.role, name=name)
        if serves:
            self.hub = Hub(
                self.feed,
                by_word,
                self.supervisor,
                per_user=settings.ws_connections_per_user,
                origins=settings.cors_origins,
            )
        found = routes(self.tasks, self.feed, self.health) if serves else health_routes(self.health)
        handle = application(found, by_word, settings.cors_origins)
        self.http = HttpServer(handle, self.supervisor, upgrader=Sockets(self.hub) if self.hub else None)
        self._tell_health()

    def committed(self) -> None:
        """Something was committed that the feed, and other processes, should see."""
        self.feed.wake()
        self.notifier.others = self.keeper.others > 0
        self.notifier.committed()

    def _tell_health(self) -> None:
        self.health.add("database", lambda: from_fault(self.feed.fault or self.keeper.fault))
        self.health.add("listener", lambda: from_fault(self.listener.fault))
        if self.worker is not None:
            self.health.add("workers", self.worker.health)

    def _lock_key(self) -> int | None:
        lease: UUID | None = self.keeper.lease
        return None if lease is None else lock_key(lease)

    def _woken(self) -> None:
        self.feed.wake()

    def _reconnected(self) -> None:
        self.feed.doubt()
        if self.worker is not None:
            self.worker.wake()

    def begin_anew(self) -> None:
        """The log is another one: whoever follows it comes back and is told so."""
        if self.hub is not None:
            self.hub.reset()
        self.http.end_streams()


class Sockets:
    """Which requests for a WebSocket the hub takes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def wants(self, head: Head) -> bool:
        """Return whether the request is for the socket's path."""
        try:
            return split(head.target)[0] == SOCKET_PATH
        except Exception:
            return False

    def upgrade(self, head: Head, raw_head: bytes, tail: bytes, transport: asyncio.Transport) -> asyncio.Protocol:
        """Hand the transport to the hub."""
        return self._hub.upgrade(head, raw_head, tail, transport)


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
        self._parts: Parts | None = None
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
            return function

        return add

    @property
    def parts(self) -> Parts:
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
        return self.parts.http.address

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
        parts = self._parts = Parts(self.settings, await self._database_url(), self.registry)
        await parts.database.open()
        if await pending(parts.database):
            await migrate(self.settings.database_listen_url or parts.database.url)
        await parts.feed.start()
        parts.feed.on_reset(parts.begin_anew)
        parts.notifier.start()
        if parts.worker is not None:
            parts.feed.subscribe(parts.worker.observe)
            await parts.worker.start()
        else:
            await parts.keeper.start()
        await parts.listener.start()
        if parts.hub is not None:
            parts.hub.start()
        parts.health.started()
        await parts.http.start(self.settings.http.host, self.settings.http.port)

    def hurry(self) -> None:
        """Wait for no running task at the end, now or when it comes."""
        self._hurried = True
        if self._parts is not None and self._parts.worker is not None:
            self._parts.worker.hurry()

    async def stop(self) -> None:
        """Stop all parts in order, once; safe twice, and before `start`. Who is cancelled here leaves, it goes on."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        stopping = self._stopping
        await asyncio.shield(stopping)
        self._stopping = None

    async def _stop(self) -> None:
        parts = self._parts
        if parts is not None:
            # 1. Not ready; nobody new.
            parts.health.stopping()
            await parts.http.stop_accepting()
            # 2. Idle connections close, sockets get 1001, requests that are being answered end.
            if parts.hub is not None:
                await parts.hub.stop(0 if self._hurried else ANSWER_WITHIN)
            await parts.http.drain(0 if self._hurried else ANSWER_WITHIN)
            # 3. Claiming stops; what runs gets its time, then it is cancelled and given back.
            if parts.worker is not None:
                await parts.worker.drain(0 if self._hurried else self.settings.shutdown_seconds)
                await parts.worker.stop()
            else:
                await parts.keeper.stop()
            # 4. Nothing more is written or read.
            await parts.http.stop()
            await parts.tasks.close()
            await parts.claims.close()
            await parts.notifier.stop()
            await parts.feed.stop()
            await parts.listener.stop()
            await parts.supervisor.stop()
            await parts.database.close()
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
