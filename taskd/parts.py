"""The parts of one process over a database: which of them a role has, how they start, and how they end.

`front` has those that clients meet. Nothing is global: two sets of parts may live in one event loop.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from taskd import __version__
from taskd.config import Settings
from taskd.front import ANSWER_WITHIN, Front
from taskd.metrics.catalog import Catalog
from taskd.metrics.lag import LoopLag
from taskd.runtime.supervisor import Supervisor
from taskd.runtime.together import together
from taskd.service.auth import Gate
from taskd.service.census import Census
from taskd.service.feed import RING_EVENTS, LogFeed
from taskd.service.health import PartsHealth, from_fault
from taskd.service.tasks import TaskService
from taskd.store.claims import ClaimStore
from taskd.store.events import EventLog
from taskd.store.leases import LeaseStore, lock_key
from taskd.store.listener import Listener, Notifier
from taskd.store.migrate import migrate, pending
from taskd.store.pool import Database
from taskd.store.search import SearchStore, configure
from taskd.store.sweep import SweepStore
from taskd.store.tasks import TaskStore
from taskd.store.tokens import FIRST_TOKEN, TokenStore
from taskd.store.totals import TotalsStore
from taskd.tls import tls_of
from taskd.worker.lease import LeaseKeeper
from taskd.worker.registry import Registry
from taskd.worker.worker import Worker

if TYPE_CHECKING:
    from taskd.rpc.server import GrpcServer


logger = logging.getLogger("taskd")


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
        self.tls = tls_of(settings)
        self._build_store(url)
        self._build_services()
        self._build_worker(registry)
        self._build_transports()
        self._tell_health()
        show(self)

    def _build_store(self, url: str) -> None:
        listen_url = self.settings.database_listen_url or url
        direct = self.settings.direct
        self.database = Database(url, max_size=10, direct=direct, catalog=self.catalog)
        self.listener = Listener(listen_url, self._lock_key, self._woken, self._reconnected, self.supervisor)
        self.notifier = Notifier(self.database, self.supervisor)
        self.claims = ClaimStore(self.database, self.committed, self.catalog, follows=True)
        # Its own: a renewal that waits behind ten slow statements comes too late, and costs what runs.
        self.renewals = Database(url, max_size=2, direct=direct, catalog=self.catalog)
        self.leases = LeaseStore(self.renewals, self.committed, catalog=self.catalog)
        self.sweep = SweepStore(
            self.database,
            self.committed,
            retention_days=self.settings.retention_days,
            event_retention_hours=self.settings.event_retention_hours,
        )

    def _build_services(self) -> None:
        # Who serves nobody reads the log to count and to wake: it shows no event, and keeps none.
        log = EventLog(self.database, content=self.serves)
        self.feed = LogFeed(log, self.supervisor, ring=RING_EVENTS if self.serves else 0)
        self.census = Census(TotalsStore(self.database), self.feed, self.supervisor)
        if not self.serves:
            self.feed.sum_for(self.census)
        self.tokens = TokenStore(self.database)
        known = self.tokens if self.settings.auth == "token" else None
        proxies = self.settings.trusted_proxies
        self.gate = Gate(known, self.supervisor, rate=self.settings.rate_limit, proxies=proxies, catalog=self.catalog)
        self.service = TaskService(TaskStore(self.database, self.catalog), SearchStore(self.database), self.committed)
        self.health = PartsHealth()

    def _build_worker(self, registry: Registry) -> None:
        settings, role = self.settings, self.settings.role
        self.worker: Worker | None = None
        self.keeper: LeaseKeeper
        # Also where no handler runs: workers elsewhere have their streams here.
        if self.works or settings.grpc is not None:
            self.worker = Worker(
                self.claims,
                self.leases,
                self.sweep,
                registry,
                self.supervisor,
                slots=settings.concurrency if self.works else 0,
                role=role,
                name=self.name,
            )
            self.keeper = self.worker.keeper
        else:
            self.keeper = LeaseKeeper(self.leases, self.supervisor, role=role, name=self.name)
        self.keeper.on_others = self.notifier.count_peers

    def _build_transports(self) -> None:
        self.front = Front(
            self.settings,
            self.service,
            self.feed,
            lambda: self.feed.epoch,
            self.health,
            self.supervisor,
            self.catalog,
            self.gate,
            self.tls,
            serves=self.serves,
        )
        self.tasks = self.front.tasks
        self.grpc = self._grpc() if self.serves and self.settings.grpc is not None else None

    def _grpc(self) -> GrpcServer:
        # Imported only where it is used: it takes 10 MiB and seven threads.
        from taskd.rpc.server import GrpcServer
        from taskd.rpc.work import WorkCalls

        assert self.worker is not None, "whoever serves gRPC has workers"
        return GrpcServer(
            self.front.tasks,
            self.front.reads,
            self.front.reads,
            self.feed,
            self.health,
            WorkCalls(self.worker.crews, self.supervisor),
            self.tokens,
            self.gate,
            self.tls,
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
        if self.worker is not None:
            self.health.add("workers", self.worker.health)

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

    def _follow(self) -> None:
        """Let the parts follow the log: first what others may ask when they are told of a change."""
        for listener in (self.front.reads.observe, self.census.observe):
            self.feed.subscribe(listener)
        if self.worker is not None:
            # Where claims look first, and then whoever claims.
            self.feed.subscribe(self.claims.observe)
            self.feed.subscribe(self.worker.observe)
        self.front.start()
        self.feed.on_reset(self._begin_anew)

    def _begin_anew(self) -> None:
        """The log is another one: whoever follows it comes back and is told so."""
        self.front.begin_anew()
        self.census.begin_anew()
        self.claims.begin_anew()
        if self.grpc is not None:
            self.grpc.watches.reset()

    @property
    def http_address(self) -> str | None:
        """Where HTTP is served, as `host:port`."""
        return self.front.http.address

    @property
    def grpc_address(self) -> str | None:
        """Where gRPC is served, as `host:port`; None: nowhere."""
        return None if self.grpc is None else self.grpc.address

    async def start(self) -> None:
        """Start all parts, in the order of floors; ready at the end.

        Raises:
            ConfigError, StartError, Unavailable: what is missing; call `stop` then.
        """
        settings = self.settings
        # Side by side: for each, the server begins a process of its own.
        await together(self._migrate(), self.renewals.open(), self.listener.open())
        await together(self._look(), self._register())
        # What was committed before this process listened, by others who did not know of it, was told to nobody here.
        self.feed.wake()
        self.gate.start()
        self.census.start()
        if self.front.cache is not None:
            await self.front.cache.start()
        self.notifier.start()
        if self.worker is not None:
            await self.worker.start()
        self.lag.start()
        self.health.started()
        if self.grpc is not None and settings.grpc is not None:
            await self.grpc.start(settings.grpc.host, settings.grpc.port)
        await self.front.http.start(settings.http.host, settings.http.port)

    async def _migrate(self) -> None:
        """See to it that the database has the schema of this program."""
        await self.database.open()
        if await pending(self.database):
            await migrate(self.settings.database_listen_url or self.database.url)

    async def _look(self) -> None:
        """See whether the database fits the settings, and follow its log."""
        await configure(self.database, self.settings.search_config, rebuild=False)
        if not self.gate.by_word and not await self.tokens.any():
            logger.warning("nobody has a token yet: %s", FIRST_TOKEN)
        await self.feed.start()
        self._follow()

    async def _register(self) -> None:
        """Make this process known, and hear of others: its lease first, whose lock the listening connection holds."""
        await self.keeper.start()
        await self.listener.start()

    def reload(self) -> None:
        """Read the certificates again.

        Raises:
            ConfigError: they are wrong; those from before stay in use.
        """
        if self.tls is not None:
            self.tls.reload()

    def hurry(self) -> None:
        """Wait for no running task at the end, now or when it comes."""
        if self.worker is not None:
            self.worker.hurry()

    async def stop(self, patience: Callable[[float], float]) -> None:
        """Stop all parts, in order.

        Args:
            patience: returns the seconds that may really be waited, of those that are wanted.
        """
        # 1. Not ready; nobody new.
        self.health.stopping()
        if self.grpc is not None:
            await self.grpc.stop_accepting()
        if self.worker is not None:
            self.worker.announce(patience(self.settings.shutdown_seconds))
        await self.front.http.stop_accepting()
        # 2. Idle connections close, sockets get 1001, requests and calls that are being answered end.
        await self.front.drain(patience)
        if self.grpc is not None:
            await self.grpc.drain(patience(ANSWER_WITHIN))
        # 3. Claiming stops; what runs gets its time, then it is cancelled and given back.
        if self.worker is not None:
            await self.worker.drain(patience(self.settings.shutdown_seconds))
            await self.worker.stop()
        else:
            await self.keeper.stop()
        # 4. Nothing more is written or read.
        await self.front.http.stop()
        if self.grpc is not None:
            await self.grpc.stop()
        self.lag.stop()
        await self.gate.stop()
        await self.service.close()
        await self.claims.close()
        if self.front.cache is not None:
            await self.front.cache.stop()
        await self.census.stop()
        await self.notifier.stop()
        await self.feed.stop()
        await self.listener.stop()
        await self.supervisor.stop()
        await self.renewals.close()
        await self.database.close()


def show(parts: Parts) -> None:
    """Show in the metrics what the parts know anyway."""
    catalog, census, worker = parts.catalog, parts.census, parts.worker
    catalog.tasks.track_all(lambda: {(status.value,): number for status, number in census.counts.items()})
    catalog.oldest_ready.track(lambda: census.oldest_ready)
    catalog.average_processing = lambda: census.average_processing
    catalog.workers_busy.track(lambda: 0 if worker is None else worker.busy)
    catalog.workers_slots.track(lambda: 0 if worker is None else worker.slots)
    catalog.refused.track(lambda: 0 if worker is None else worker.refused)
    catalog.database_up.track(lambda: int(parts.database_fault is None))
    catalog.log_behind.track(lambda: parts.feed.behind)
    catalog.pool_connections.track(lambda: parts.database.connections[1], "idle")
    catalog.pool_connections.track(lambda: parts.database.connections[0] - parts.database.connections[1], "busy")
