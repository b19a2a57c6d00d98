"""`taskd check`: look at the configuration and the database, and give advice."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from taskd import config
from taskd.config import Settings, validate_start
from taskd.domain.model import ListQuery, User
from taskd.domain.token import authorization_of
from taskd.errors import ConfigError, Forbidden, Unauthenticated, Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.store.listener import Listener
from taskd.store.migrate import OLDEST_SERVER, pending
from taskd.store.pool import Database
from taskd.store.search import configured
from taskd.store.tokens import FIRST_TOKEN, TokenStore
from taskd.tls import tls_of, upstream_trust

POOL = 12
"""Connections that one process may open: ten for all, two for its lease; and one more to listen."""


EXPIRES_SOON = 14.0
"""Days before a certificate's end from which on that is a fault."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    what: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, so that `check` is called as `serve` is."""
    config.add_flags(parser)


def run(asked: argparse.Namespace) -> int:
    """Print what was found; 0 when all is well, 1 when something is not, 3 when what it stands on can't be reached."""
    settings = config.from_command_line(asked)
    return asyncio.run(_check(settings))


async def _check(settings: Settings) -> int:
    good = True
    try:
        async for finding in findings(settings):
            good = good and finding.ok
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}")
    except Unavailable as error:
        print(f"FAIL  {'database' if settings.upstream is None else 'upstream'}: {error}")
        return 3
    return 0 if good else 1


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Yield what there is to say.

    Raises:
        Unavailable: the database, or the upstream of a gateway, does not answer.
    """
    try:
        validate_start(settings)
        yield Finding(True, "configuration: its settings go together")
    except ConfigError as error:
        yield Finding(False, f"configuration: {error}")
    for finding in _tls(settings):
        yield finding
    if settings.cache not in ("memory", "off"):
        yield await _cache(settings.cache)
    if settings.upstream is not None:
        yield await _upstream(settings, settings.upstream)
        return
    if settings.database_url is None:
        yield Finding(True, f"database: an embedded PostgreSQL in {settings.data_dir.absolute()}")
        return
    database = Database(settings.database_url, max_size=1, direct=settings.direct)
    try:
        await database.open()
        async for finding in _of_database(database):
            yield finding
        if not await pending(database):
            yield await _search(database, settings.search_config)
            if settings.auth == "token":
                some = await TokenStore(database).any()
                yield Finding(some, "tokens: there are some" if some else f"tokens: none yet; {FIRST_TOKEN}")
        yield await _listening(settings.database_listen_url or settings.database_url)
    finally:
        await database.close()


def _tls(settings: Settings) -> Iterator[Finding]:
    """Look at the certificate, and at what goes over the network without one."""
    try:
        tls = tls_of(settings)
    except ConfigError as error:
        yield Finding(False, f"certificate: {error}")
        return
    if tls is not None:
        days = (tls.expires - datetime.now(UTC)).total_seconds() / 86_400
        when = f"expires in {days:.0f} days" if days > 0 else "has expired"
        yield Finding(days > EXPIRES_SOON, f"certificate: {when}")
        return
    for name, address in (("HTTP", settings.http), ("gRPC", settings.grpc)):
        served = name == "HTTP" or settings.role in ("all", "api")
        if served and address is not None and not address.loopback:
            yield Finding(True, f"certificate: none, so {name} on {address} sends tokens that others can read")


async def _cache(url: str) -> Finding:
    """Ask the cache for a sign of life. Without one a server would start and read from the database."""
    # Imported only where it is used: the client takes 9 MiB.
    from taskd.cache.server import AWAY, Server

    server = Server(url, 1.0)
    try:
        await server.connect()
        await server.exchange([("PING",)])
        return Finding(True, "cache: answers")
    except AWAY as error:
        return Finding(False, f"cache: {server.reason(error)}; without it, reads go to the database")
    finally:
        await server.disconnect()


async def _upstream(settings: Settings, target: str) -> Finding:
    """Ask the upstream of a gateway for something, as the gateway would."""
    # Imported only where it is used: it takes 10 MiB and seven threads.
    from taskd.rpc.channel import open_channel
    from taskd.rpc.tokens import RemoteTokens
    from taskd.rpc.upstream import RemoteTasks

    channel = open_channel(target, trust=upstream_trust(settings))
    token = settings.upstream_token
    user = User("anonymous", authorization=None if token is None else authorization_of(token))
    try:
        await RemoteTasks(channel, seconds=5.0).list(user, ListQuery("anonymous", limit=1))
        if token is not None:
            # Which wants an admin, as all that a gateway asks for itself.
            await RemoteTokens(channel, user).ask([])
        return Finding(True, f"upstream: {target} answers")
    except (Unauthenticated, Forbidden) as error:
        return Finding(False, f"upstream: {target} refuses TASKD_UPSTREAM_TOKEN: {error}")
    finally:
        await channel.close()


async def _of_database(database: Database) -> AsyncIterator[Finding]:
    version = int(await database.fetchval("SHOW server_version_num"))
    yield Finding(version >= OLDEST_SERVER, f"database: PostgreSQL {version // 10000}.{version % 10000}")
    missing = await pending(database)
    applied = "schema: up to date" if not missing else f"schema: lacks {', '.join(missing)}; run `taskd migrate`"
    yield Finding(not missing, applied)
    most = int(await database.fetchval("SHOW max_connections"))
    used = await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    advice = "" if most - used > POOL else f"; one process may open {POOL + 1}: raise max_connections, or use a pooler"
    yield Finding(most - used > POOL, f"connections: {used} of {most} in use{advice}")
    encoding = await database.fetchval("SHOW server_encoding")
    yield Finding(encoding == "UTF8", f"encoding: {encoding}")
    lowered = await database.fetchval("SELECT lower('ПРИВЕТ') = 'привет'")
    words = "knows Cyrillic" if lowered else "does not know Cyrillic, so Russian words are not found by all their forms"
    yield Finding(bool(lowered), f"locale: {words}")


async def _search(database: Database, wanted: str) -> Finding:
    """Compare the documents with the setting. A server would stop at another, or make them anew if there are none."""
    try:
        found = await configured(database, wanted)
    except ConfigError as error:
        return Finding(False, f"search: {error}")
    same = found.present == found.wanted
    other = f", and not with {wanted}: `taskd migrate` makes them anew"
    return Finding(same, f"search: documents are made with {found.present}{'' if same else other}")


async def _listening(url: str) -> Finding:
    """Try LISTEN, which a pooler in transaction mode can't carry."""
    heard = asyncio.Event()
    listener = Listener(url, lambda: None, heard.set, heard.set, Supervisor())
    sender = Database(url, max_size=1)
    try:
        await listener.start()
        await sender.open()
        await sender.execute("NOTIFY taskd")
        async with asyncio.timeout(5):
            await heard.wait()
        return Finding(True, "notifications: arrive")
    except TimeoutError:
        return Finding(False, "notifications: do not arrive; set TASKD_DATABASE_LISTEN_URL past the pooler")
    finally:
        await listener.stop()
        await sender.close()
