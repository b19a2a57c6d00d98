"""The parts of one process: the one place that knows every concrete class, and which of them a role has.

Here they are made and told of one another; `app` starts and stops them. Nothing is global: two sets of parts may live
in one event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING
from uuid import UUID

from taskd import __version__
from taskd.cache.memory import MemoryCache
from taskd.cache.port import Cache
from taskd.config import Settings
from taskd.http1.head import Head
from taskd.http1.target import split
from taskd.metrics.catalog import Catalog
from taskd.metrics.lag import LoopLag
from taskd.runtime.supervisor import Supervisor
from taskd.service.cached import CachedReads, CachedTasks
from taskd.service.census import Census
from taskd.service.feed import LogFeed
from taskd.service.health import PartsHealth, from_fault
from taskd.service.ports import PartHealth, View
from taskd.service.tasks import TaskService
from taskd.service.views import LIST, TASK, pack_view, unpack_view, view_size
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog
from taskd.store.leases import LeaseStore, lock_key
from taskd.store.listener import Listener, Notifier
from taskd.store.pool import Database
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.store.totals import TotalsStore
from taskd.web.application import SOCKET_PATH, application, bare_routes, routes
from taskd.web.identity import by_word
from taskd.web.server import HttpServer
from taskd.worker.lease import LeaseKeeper
from taskd.worker.registry import Registry
from taskd.worker.worker import Worker
from taskd.ws.hub import Hub

if TYPE_CHECKING:
    from taskd.rpc.server import GrpcServer


class Parts:
    """What one process is made of, built for its role and not yet started; in the order of floors."""

    def __init__(self, settings: Settings, url: str, registry: Registry) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.serves, self.works = settings.role in ("all", "api"), settings.role in ("all", "worker")
        self.supervisor = Supervisor()
        self.catalog = Catalog(__version__, settings.metrics_buckets)
        self.catalog.kinds.register(registry.kinds)
        self.lag = LoopLag(self.catalog.loop_lag.labels())
        self._build_store(url)
        self._build_services()
        self._build_worker(registry)
        self._build_transports()
        self._tell_health()
        show(self)

    def _build_store(self, url: str) -> None:
        listen_url = self.settings.database_listen_url or url
        self.database = Database(url, max_size=10, catalog=self.catalog)
        self.listener = Listener(listen_url, self._lock_key, self._woken, self._reconnected, self.supervisor)
        self.notifier = Notifier(self.database, self.supervisor)
        self.claims = ClaimStore(self.database, self.committed, self.catalog)
        self.leases = LeaseStore(self.database, self.committed, catalog=self.catalog)
        self.sweep = SweepStore(
            self.database,
            self.committed,
            retention_days=self.settings.retention_days,
            event_retention_hours=self.settings.event_retention_hours,
        )

    def _build_services(self) -> None:
        self.feed = LogFeed(EventLog(self.database), self.supervisor)
        self.census = Census(TotalsStore(self.database), self.feed, self.supervisor)
        self.cache = self._cache() if self.serves else None
        self.plain_tasks = TaskService(TaskStore(self.database, self.catalog), self.committed)
        self.reads = CachedReads(self.plain_tasks, self.cache, self.catalog)
        self.tasks = CachedTasks(self.plain_tasks, self.reads)
        self.health = PartsHealth()

    def _cache(self) -> Cache[View] | None:
        settings = self.settings
        if settings.cache == "off":
            return None
        if settings.cache == "memory":
            ttl, entries, size = settings.cache_ttl, settings.cache_entries, settings.cache_bytes
            return MemoryCache(self.supervisor, ttl=ttl, entries=entries, size=size, size_of=view_size)
        # Imported only where it is used: the client takes 9 MiB.
        from taskd.cache.redis import RedisCache

        return RedisCache(
            settings.cache,
            self.supervisor,
            ttl=settings.cache_ttl,
            namespace=lambda: self.feed.epoch.hex(),
            pack=pack_view,
            unpack=unpack_view,
        )

    def _build_worker(self, registry: Registry) -> None:
        role = self.settings.role
        self.worker: Worker | None = None
        self.keeper: LeaseKeeper
        if self.works:
            self.worker = Worker(
                self.claims,
                self.leases,
                self.sweep,
                registry,
                self.supervisor,
                slots=self.settings.concurrency,
                role=role,
                name=self.name,
            )
            self.keeper = self.worker.keeper
        else:
            self.keeper = LeaseKeeper(self.leases, self.supervisor, role=role, name=self.name)
        self.keeper.on_others = self.notifier.count_peers

    def _build_transports(self) -> None:
        origins, catalog = self.settings.cors_origins, self.catalog
        self.hub: Hub | None = None
        if self.serves:
            per_user = self.settings.ws_connections_per_user
            self.hub = Hub(self.feed, by_word, self.supervisor, per_user=per_user, origins=origins, catalog=catalog)
            found = routes(self.tasks, self.reads, self.feed, self.health, catalog)
        else:
            found = bare_routes(self.health, catalog)
        upgrader = Sockets(self.hub) if self.hub else None
        handle = application(found, by_word, origins, catalog)
        self.http = HttpServer(handle, self.supervisor, upgrader=upgrader, catalog=catalog)
        self.grpc = self._grpc() if self.serves and self.settings.grpc is not None else None

    def _grpc(self) -> GrpcServer:
        # Imported only where it is used: it takes 10 MiB and seven threads.
        from taskd.rpc.identity import by_word
        from taskd.rpc.server import GrpcServer

        return GrpcServer(
            self.tasks,
            self.reads,
            self.feed,
            self.health,
            None,
            by_word,
            # Whoever is taken at their word is trusted with everything.
            lambda user: True,
            self.supervisor,
            self.catalog,
        )

    def committed(self) -> None:
        """Something was committed that the feed, and other processes, should see."""
        self.feed.wake()
        self.notifier.committed()

    @property
    def database_fault(self) -> str | None:
        """Why the database does not answer, as far as the parts that ask it all the time know, or None."""
        return self.feed.fault or self.keeper.fault

    def _tell_health(self) -> None:
        self.health.add("database", lambda: from_fault(self.database_fault))
        self.health.add("listener", lambda: from_fault(self.listener.fault))
        if self.cache is not None:
            self.health.add("cache", self._cache_health)
        if self.worker is not None:
            self.health.add("workers", self.worker.health)

    def _cache_health(self) -> PartHealth:
        fault = None if self.cache is None else self.cache.fault
        # Without it all is answered, by the database: no reason to be sent no work.
        return PartHealth(True, "ok" if fault is None else f"{fault}; reads go to the database")

    def _lock_key(self) -> int | None:
        lease: UUID | None = self.keeper.lease
        return None if lease is None else lock_key(lease)

    def _woken(self) -> None:
        self.feed.wake()
        if not self.notifier.has_peers:
            # Somebody notifies, and no other process is known.
            self.keeper.look()

    def _reconnected(self) -> None:
        self.feed.doubt()
        if self.worker is not None:
            self.worker.wake()

    def follow(self) -> None:
        """Let the parts follow the log: first what others may ask when they are told of a change."""
        for listener in (self.reads.observe, self.census.observe):
            self.feed.subscribe(listener)
        if self.worker is not None:
            self.feed.subscribe(self.worker.observe)
        if self.hub is not None:
            self.hub.start()
        self.feed.on_reset(self.begin_anew)

    def begin_anew(self) -> None:
        """The log is another one: whoever follows it comes back and is told so."""
        self.reads.begin_anew()
        self.census.begin_anew()
        if self.hub is not None:
            self.hub.reset()
        self.http.end_streams()
        if self.grpc is not None:
            self.grpc.watches.reset()


def show(parts: Parts) -> None:
    """Show in the metrics what the parts know anyway."""
    catalog, census, worker, hub, cache = parts.catalog, parts.census, parts.worker, parts.hub, parts.cache
    catalog.tasks.track_all(lambda: {(status.value,): number for status, number in census.counts.items()})
    catalog.oldest_ready.track(lambda: census.oldest_ready)
    catalog.average_processing = lambda: census.average_processing
    catalog.workers_busy.track(lambda: 0 if worker is None else worker.pool.busy)
    catalog.workers_slots.track(lambda: 0 if worker is None else worker.slots)
    catalog.refused.track(lambda: 0 if worker is None else worker.executor.refused)
    catalog.sockets.track(lambda: 0 if hub is None else hub.connections)
    catalog.events_sent.track(lambda: 0 if hub is None else hub.events_sent)
    if hub is not None:
        closed = hub.closed
        for why in ("client", "lost", "replaced", "too_many_connections", "slow_consumer"):
            catalog.sockets_closed.expect(why)
        catalog.sockets_closed.track_all(lambda: {(why.replace(" ", "_"),): n for why, n in closed.items()})
    catalog.cache_up.track(lambda: int(cache is None or cache.fault is None))
    if isinstance(cache, MemoryCache):
        for name in (TASK, LIST):
            for reason in ("expired", "invalidated", "entries", "bytes"):
                catalog.cache_evictions.expect(name, reason)
        catalog.cache_entries.track_all(lambda: {(name,): cache.entries.get(name, 0) for name in (TASK, LIST)})
        catalog.cache_evictions.track_all(lambda: cache.evictions)
    catalog.database_up.track(lambda: int(parts.database_fault is None))
    catalog.log_behind.track(lambda: parts.feed.behind)
    catalog.pool_connections.track(lambda: parts.database.connections[1], "idle")
    catalog.pool_connections.track(lambda: parts.database.connections[0] - parts.database.connections[1], "busy")


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
