"""What serves clients over HTTP, whatever service is behind it: cache, REST, WebSockets, streams, metrics."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taskd.cache.memory import MemoryCache
from taskd.cache.port import Cache
from taskd.config import Settings
from taskd.http1.head import Head
from taskd.http1.target import split
from taskd.metrics.catalog import Catalog
from taskd.runtime import descriptors
from taskd.runtime.descriptors import Shares
from taskd.runtime.supervisor import Supervisor
from taskd.service.auth import Gate
from taskd.service.cached import CachedReads, CachedTasks
from taskd.service.health import PartsHealth
from taskd.service.ports import Feed, PartHealth, Tasks, View
from taskd.service.views import LIST, TASK, pack_view, unpack_view, view_size
from taskd.tls import Tls
from taskd.web.application import SOCKET_PATH, application, bare_routes, routes
from taskd.web.hot import HotAnswers
from taskd.web.identity import Callers
from taskd.web.server import MAX_CONNECTIONS, HttpServer
from taskd.web.upgrade import Upgrade
from taskd.ws.registry import MAX_SOCKETS

if TYPE_CHECKING:
    from taskd.ws.hub import Hub

ANSWER_WITHIN = 5.0
"""Seconds that requests which are being answered get at the end."""


class Front:
    """The parts that clients meet, built and not yet started.

    Args:
        settings: of the process.
        service: what reads and changes tasks, uncached.
        feed: the event log.
        epoch: names that log: a shared cache of another log must not be read.
        health: of all parts; this adds the cache's.
        gate: lets callers in.
        tls: the certificate that is shown; None: no TLS.
        serves: False: only health and metrics are answered.
    """

    def __init__(
        self,
        settings: Settings,
        service: Tasks,
        feed: Feed,
        epoch: Callable[[], bytes],
        health: PartsHealth,
        supervisor: Supervisor,
        catalog: Catalog,
        gate: Gate,
        tls: Tls | None = None,
        *,
        serves: bool = True,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._catalog = catalog
        self.cache = self._cache(epoch) if serves else None
        self.reads = CachedReads(service, self.cache, catalog)
        self.tasks = CachedTasks(service, self.reads)
        names = {settings.http.host, *(urlsplit(origin).hostname or "" for origin in settings.cors_origins)}
        callers = Callers(gate, names)
        shares = Shares.of(descriptors.limit(), MAX_CONNECTIONS, MAX_SOCKETS)
        self.sockets = Sockets(lambda: self._hub(feed, gate, callers, shares)) if serves else None
        if serves:
            per_user = settings.ws_connections_per_user
            found = routes(
                self.tasks, self.reads, feed, health, catalog, gate.hold, per_user=per_user, by_word=gate.by_word
            )
        else:
            found = bare_routes(health, catalog)
        self.http = HttpServer(
            application(found, callers, settings.cors_origins, catalog),
            supervisor,
            upgrader=self.sockets,
            max_connections=shares.http,
            catalog=catalog,
            tls=tls,
            hot=HotAnswers(self.reads, gate.believes, catalog),
        )
        if self.cache is not None:
            health.add("cache", self._cache_health)
        self._show()

    @property
    def hub(self) -> Hub | None:
        """The owner of all WebSockets; None: nobody has asked for one."""
        return None if self.sockets is None else self.sockets.hub

    def _hub(self, feed: Feed, gate: Gate, callers: Callers, shares: Shares) -> Hub:
        # Imported only where it is used: a start would wait for it, and for all of `websockets`.
        from taskd.ws.hub import Hub

        return Hub(
            feed,
            callers.admit_socket,
            gate.hold,
            self._supervisor,
            per_user=self._settings.ws_connections_per_user,
            most=shares.sockets,
            origins=self._settings.cors_origins,
            catalog=self._catalog,
        )

    def _cache(self, epoch: Callable[[], bytes]) -> Cache[View] | None:
        settings = self._settings
        if settings.cache == "off":
            return None
        if settings.cache == "memory":
            ttl, entries, size = settings.cache_ttl, settings.cache_entries, settings.cache_bytes
            return MemoryCache(self._supervisor, ttl=ttl, entries=entries, size=size, size_of=view_size)
        # Imported only where it is used: the client takes 9 MiB.
        from taskd.cache.redis import RedisCache

        return RedisCache(
            settings.cache,
            self._supervisor,
            ttl=settings.cache_ttl,
            namespace=lambda: epoch().hex(),
            pack=pack_view,
            unpack=unpack_view,
        )

    def _cache_health(self) -> PartHealth:
        fault = None if self.cache is None else self.cache.fault
        # Without it all is answered, by the service behind it: no reason to be sent no work. Where it is, and what it
        # said, is for the log: anybody may ask this.
        return PartHealth(True, "ok" if fault is None else "away; reads go to the database")

    def begin_anew(self) -> None:
        """The log is another one: whoever follows it comes back and is told so."""
        self.reads.begin_anew()
        if self.hub is not None:
            self.hub.reset()
        self.http.end_streams()

    def start(self) -> None:
        """Take WebSockets, now that the feed follows the log."""
        if self.sockets is not None:
            self.sockets.start()

    async def drain(self, patience: Callable[[float], float]) -> None:
        """Send sockets away, close idle connections, and let what is being answered end.

        Args:
            patience: returns the seconds that may really be waited, of those that are wanted.
        """
        if self.sockets is not None:
            await self.sockets.stop(patience(ANSWER_WITHIN))
        await self.http.drain(patience(ANSWER_WITHIN))
        if self.sockets is not None:
            # Again, for those whose request was being looked at: they were refused since.
            await self.sockets.stop(patience(ANSWER_WITHIN))

    def _show(self) -> None:
        """Show in the metrics what the parts know anyway."""
        catalog, cache = self._catalog, self.cache
        catalog.sockets.track(lambda: 0 if self.hub is None else self.hub.connections)
        catalog.events_sent.track(lambda: 0 if self.hub is None else self.hub.events_sent)
        if self.sockets is not None:
            for why in ("client", "lost", "replaced", "too_many_connections", "slow_consumer"):
                catalog.sockets_closed.expect(why)
            catalog.sockets_closed.track_all(self._closed)
        catalog.cache_up.track(lambda: int(cache is None or cache.fault is None))
        if isinstance(cache, MemoryCache):
            for name in (TASK, LIST):
                for reason in ("expired", "invalidated", "entries", "bytes"):
                    catalog.cache_evictions.expect(name, reason)
            catalog.cache_entries.track_all(lambda: {(name,): cache.entries.get(name, 0) for name in (TASK, LIST)})
            catalog.cache_evictions.track_all(lambda: cache.evictions)

    def _closed(self) -> dict[tuple[str, ...], float]:
        closed = {} if self.hub is None else self.hub.closed
        return {(why.replace(" ", "_"),): number for why, number in closed.items()}


class Sockets:
    """Which requests for a WebSocket the hub takes. It is made for the first one.

    Args:
        make: makes the hub.
    """

    def __init__(self, make: Callable[[], Hub]) -> None:
        self.hub: Hub | None = None
        self._make = make
        self._making = asyncio.Lock()
        self._takes = False

    def start(self) -> None:
        """Take connections."""
        self._takes = True

    async def stop(self, within: float) -> None:
        """Take no more, and end those there are; see `Hub.stop`. Safe twice."""
        self._takes = False
        async with self._making:
            if self.hub is not None:
                await self.hub.stop(within)

    def wants(self, head: Head) -> bool:
        """Return whether the request is for the socket's path."""
        try:
            return split(head.target)[0] == SOCKET_PATH
        except Exception:
            return False

    async def admit(self, head: Head, peer: str) -> Upgrade:
        """Let the hub look at the request; return what hands it the transport."""
        hub = self.hub or await self._first()
        entry = await hub.admit(head, peer)
        return lambda tail, transport: hub.upgrade(entry, tail, transport)

    async def _first(self) -> Hub:
        async with self._making:
            if self.hub is None:
                # In a thread, for it takes tens of milliseconds: others are answered meanwhile. And in one of its own:
                # handlers may hold all those of the loop.
                thread = ThreadPoolExecutor(1, "websockets")
                load = partial(importlib.import_module, "taskd.ws.hub")
                await asyncio.get_running_loop().run_in_executor(thread, load)
                thread.shutdown(wait=False)
                self.hub = self._make()
                if self._takes:
                    self.hub.start()
            return self.hub
