"""The parts of a gateway: what clients meet, over the service of a taskd elsewhere, without a database."""

from __future__ import annotations

from collections.abc import Callable

from taskd import __version__
from taskd.config import Settings
from taskd.domain.model import Role, User
from taskd.domain.token import authorization_of
from taskd.front import Front
from taskd.metrics.catalog import Catalog
from taskd.metrics.lag import LoopLag
from taskd.rpc.channel import open_channel
from taskd.rpc.feed import RemoteFeed
from taskd.rpc.tokens import RemoteTokens
from taskd.rpc.upstream import RemoteTasks
from taskd.runtime.supervisor import Supervisor
from taskd.service.auth import Gate
from taskd.service.health import PartsHealth, from_fault
from taskd.tls import tls_of, upstream_trust


class Gateway:
    """What a gateway is made of, built and not yet started; in the order of floors.

    It starts whether or not its upstream can be reached: until then it is not ready, and answers 503.
    """

    grpc_address = None
    """A gateway serves no gRPC: whoever speaks it asks the upstream."""

    def __init__(self, settings: Settings, upstream: str) -> None:
        self.settings = settings
        self.supervisor = Supervisor()
        self.catalog = Catalog(__version__, settings.metrics_buckets)
        self.lag = LoopLag(self.catalog.loop_lag.labels())
        self.tls = tls_of(settings)
        self.channel = open_channel(upstream, trust=upstream_trust(settings))
        token = settings.upstream_token
        # Where callers are taken at their word, here and there, so is this one.
        itself = User("gateway", Role.ADMIN, authorization=None if token is None else authorization_of(token))
        self.feed = RemoteFeed(self.channel, itself, self.supervisor)
        known = RemoteTokens(self.channel, itself) if settings.auth == "token" else None
        proxies = settings.trusted_proxies
        self.gate = Gate(known, self.supervisor, rate=settings.rate_limit, proxies=proxies, catalog=self.catalog)
        self.health = PartsHealth()
        self.health.add("upstream", lambda: from_fault(self.feed.fault))
        service = RemoteTasks(self.channel)
        self.front = Front(
            settings,
            service,
            self.feed,
            lambda: self.feed.epoch,
            self.health,
            self.supervisor,
            self.catalog,
            self.gate,
            self.tls,
        )
        self.tasks = self.front.tasks
        self.catalog.upstream_up.track(lambda: int(self.feed.fault is None))

    @property
    def http_address(self) -> str | None:
        """Where HTTP is served, as `host:port`."""
        return self.front.http.address

    async def start(self) -> None:
        """Start all parts.

        Raises:
            StartError: the address can't be had; call `stop` then.
        """
        self.feed.subscribe(self.front.reads.observe)
        self.front.start()
        self.feed.on_reset(self.front.begin_anew)
        if self.front.cache is not None:
            await self.front.cache.start()
        self.feed.start()
        self.gate.start()
        self.lag.start()
        self.health.started()
        await self.front.http.start(self.settings.http.host, self.settings.http.port)

    def reload(self) -> None:
        """Read the certificates again; see `Parts.reload`. The upstream is shown the new one at the next start."""
        if self.tls is not None:
            self.tls.reload()

    def hurry(self) -> None:
        """Nothing runs here that would be waited for."""

    async def stop(self, patience: Callable[[float], float]) -> None:
        """Stop all parts, in order; see `Parts.stop`."""
        # 1. Not ready; nobody new.
        self.health.stopping()
        await self.front.http.stop_accepting()
        # 2. Idle connections close, sockets get 1001, requests that are being answered end.
        await self.front.drain(patience)
        # 3. Nothing more is asked.
        await self.front.http.stop()
        self.lag.stop()
        await self.gate.stop()
        if self.front.cache is not None:
            await self.front.cache.stop()
        await self.feed.stop()
        await self.supervisor.stop()
        await self.channel.close()
