"""`taskd token create|list|revoke`: who may call. Asks the database itself, so it is for whoever runs the server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence

from taskd import config
from taskd.cli.screen import printable
from taskd.config import Settings
from taskd.domain.codec import format_time
from taskd.domain.fields import Bad, Text
from taskd.domain.forms import OWNER
from taskd.domain.model import Role
from taskd.domain.token import MAX_NOTE, TokenRecord, digest_of, new_token
from taskd.errors import ConfigError, Fault, Invalid
from taskd.store.migrate import migrate, pending
from taskd.store.pool import Database
from taskd.store.tokens import TokenStore

DATABASE = ("database_url", "database_listen_url", "data_dir", "pg_bin")
"""Settings that say where it is."""

DAY = 86_400.0
MOST_DAYS = 36_500.0

_NOTE = Text(0, MAX_NOTE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the calls, each with the settings, which say where the database is."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON, one token a line")
    config.add_flags(common, DATABASE)
    calls = parser.add_subparsers(dest="call", metavar="CALL", required=True)
    create = calls.add_parser("create", help="make a token, and show it this once", parents=[common])
    create.add_argument("--user", required=True, help="whose it is: the owner of what is created with it")
    create.add_argument("--role", choices=list(Role), default=Role.USER, help="what it is good for (user)")
    create.add_argument("--note", default="", help="what it is for, to be listed")
    create.add_argument("--days", type=_days, help="for how many days it is good; left out: until it is revoked")
    show = calls.add_parser("list", help="list tokens, which are not shown themselves", parents=[common])
    show.add_argument("--user", help="only this user's")
    revoke = calls.add_parser("revoke", help="end tokens, within 5 s everywhere", parents=[common])
    revoke.add_argument("id", nargs="*", type=int, help="number in the list")
    revoke.add_argument("--user", help="all of this user")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"must be a number of days up to {MOST_DAYS:g}")
    return days


def run(asked: argparse.Namespace) -> int:
    """Do what is asked for; 1 when there was nothing to revoke."""
    settings = config.from_command_line(asked)
    if settings.role == "gateway":
        raise ConfigError("tokens are where the database is, and a gateway has none")
    return asyncio.run(_run(settings, asked))


async def _run(settings: Settings, asked: argparse.Namespace) -> int:
    async with _tokens(settings) as tokens:
        if asked.call == "create":
            return await _create(tokens, asked)
        if asked.call == "list":
            _show(await tokens.list(asked.user), asked)
            return 0
        return await _revoke(tokens, asked)


@contextlib.asynccontextmanager
async def _tokens(settings: Settings) -> AsyncIterator[TokenStore]:
    async with contextlib.AsyncExitStack() as stack:
        url = settings.database_url or await _embedded(settings, stack)
        database = Database(url, max_size=1, direct=settings.direct)
        stack.push_async_callback(database.close)
        await database.open()
        if await pending(database):
            await migrate(settings.database_listen_url or url)
        yield TokenStore(database)


async def _embedded(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    """Return the URL of the embedded PostgreSQL: of the one that runs, or of one that runs for this."""
    from taskd.store.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(settings.data_dir, settings.pg_bin)
    if (url := server.running()) is not None:
        return url
    stack.push_async_callback(server.stop)
    return await server.start()


async def _create(tokens: TokenStore, asked: argparse.Namespace) -> int:
    faults = [
        Fault(name, bad.message)
        for name, field, text in (("--user", OWNER, asked.user), ("--note", _NOTE, asked.note))
        if isinstance(bad := field.check(text), Bad)
    ]
    if faults:
        raise Invalid(faults)
    token = new_token()
    digest = digest_of(token)
    assert digest is not None
    expires_in = None if asked.days is None else asked.days * DAY
    record = await tokens.create(digest, asked.user, Role(asked.role), asked.note, expires_in)
    if asked.json:
        print(json.dumps({**_facts(record), "token": token}))
        return 0
    print(token)
    until = "" if record.token.expires_at is None else f", until {record.token.expires_at:%Y-%m-%d %H:%M} UTC"
    print(
        f"number {record.id}: {record.token.role} {printable(asked.user)}{until}. It is not shown again.",
        file=sys.stderr,
    )
    return 0


async def _revoke(tokens: TokenStore, asked: argparse.Namespace) -> int:
    if not asked.id and asked.user is None:
        raise ConfigError("revoke: name numbers of the list, or --user")
    gone = await tokens.revoke(asked.id, asked.user)
    _show(gone, asked)
    if missing := sorted(set(asked.id) - {record.id for record in gone}):
        print(f"taskd: there is no token {', '.join(map(str, missing))}", file=sys.stderr)
    return 0 if gone and not missing else 1


def _show(records: Sequence[TokenRecord], asked: argparse.Namespace) -> None:
    if asked.json:
        for record in records:
            print(json.dumps(_facts(record)))
        return
    print(f"{'number':>6}  {'role':7}  {'created':16}  {'expires':16}  {'user':20}  note")
    for record in records:
        token = record.token
        expires = "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d %H:%M}"
        made = f"{record.id:6}  {token.role.value:7}  {record.created_at:%Y-%m-%d %H:%M}  {expires:16}"
        print(f"{made}  {printable(token.user):20}  {printable(record.note)}".rstrip())


def _facts(record: TokenRecord) -> dict[str, object]:
    token = record.token
    return {
        "id": record.id,
        "user": token.user,
        "role": token.role.value,
        "note": record.note,
        "created_at": format_time(record.created_at),
        "expires_at": None if token.expires_at is None else format_time(token.expires_at),
    }
