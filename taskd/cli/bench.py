"""`taskd bench`: how fast a running server is, as a caller sees it. Wants nothing but what taskd itself does."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
from collections.abc import Sequence

from taskd.cli.caller import add_caller, token_of, trust_of
from taskd.cli.load.queue import queue
from taskd.cli.load.rest import rest
from taskd.cli.load.rows import Row, table
from taskd.cli.load.sockets import sockets
from taskd.cli.load.target import Target
from taskd.cli.load.tasks import Tasks
from taskd.cli.screen import has_colours, printable
from taskd.config import SETTINGS
from taskd.errors import ConfigError, TaskdError

HERE = SETTINGS["http"].default

PARTS = ("rest", "queue", "sockets")

EPILOG = """\
It makes tasks, and deletes them at the end, also on Ctrl-C. The figures are those of one process that asks: where it
shares a machine with the server, each slows the other."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the server is, who calls, and how much is measured."""
    parser.epilog = EPILOG
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--server", metavar="URL", help=f"where its HTTP is (default http://TASKD_HTTP, {HERE})")
    add_caller(parser)
    parser.add_argument("--seconds", metavar="N", type=_positive, default=3.0, help="of each REST row (3)")
    parser.add_argument("--connections", metavar="N", type=_count, default=32, help="of REST (32)")
    parser.add_argument("--tasks", metavar="N", type=_count, default=2000, help="of the queue, and to be read (2000)")
    parser.add_argument("--kind", default="echo", help="of the queue's tasks, which a worker must have (echo)")
    parser.add_argument("--patience", metavar="N", type=_positive, default=10.0, help="seconds for a worker (10)")
    parser.add_argument("--sockets", metavar="N", type=_count, default=8, help="that an event goes to (8)")
    parser.add_argument("--rate", metavar="N", type=_positive, default=100.0, help="tasks a second to a socket (100)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError("must be above 0, and 100000 at the most")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("must be between 1 and 1000000")
    return value


class Progress:
    """One line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()

    def __call__(self, words: str) -> None:
        if self._shows:
            print(f"\r\x1b[K{printable(words)[:100]} …", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(asked: argparse.Namespace) -> int:
    """Measure, print, and leave the server as it was; 1 when a row has no figure."""
    server = asked.server or f"http://{os.environ.get(SETTINGS['http'].variable) or HERE}"
    target = Target(server, token_of(asked), asked.user, _context(asked))
    parts = [name for name in PARTS if name in asked.part] or list(PARTS)
    print(f"taskd bench: {target.url}, {', '.join(parts)}; its tasks are deleted at the end", file=sys.stderr)
    rows = asyncio.run(_measure(target, parts, asked))
    if asked.json:
        print(json.dumps({"server": target.url, "rows": [row.json() for row in rows]}, indent=1))
    else:
        print(table(rows, has_colours()))
    return 1 if any(row.fault is not None for row in rows) else 0


async def _measure(target: Target, parts: Sequence[str], asked: argparse.Namespace) -> list[Row]:
    tell = Progress()
    tasks = Tasks(target, tell)
    rows: list[Row] = []
    try:
        await tasks.begin()
        if "rest" in parts:
            rows += await rest(target, tasks, asked.tasks, asked.connections, asked.seconds, tell)
        if "queue" in parts:
            rows += await queue(target, tasks, asked.tasks, asked.kind, asked.patience, tell)
        if "sockets" in parts:
            rows += await sockets(target, tasks, asked.sockets, asked.rate, asked.seconds, tell)
    finally:
        await _clean(tasks)
        tell.clear()
    return rows


async def _clean(tasks: Tasks) -> None:
    """Delete what was made; say what is left when that does not go."""
    why = ""
    try:
        left = await tasks.remove()
    except TaskdError as error:
        left, why = None, f": {error}"
    if left != 0:
        words = f"{'some' if left is None else left} tasks of it are left, with {tasks.mark} in their payload{why}"
        print(f"\ntaskd bench: {printable(words)}", file=sys.stderr)


def _context(asked: argparse.Namespace) -> ssl.SSLContext | None:
    """Return how the server and the caller prove who they are, or None where nothing was said of it."""
    trust = trust_of(asked)
    if trust is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(trust.ca))
        if trust.cert is not None:
            context.load_cert_chain(trust.cert, trust.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca, --cert or --key: {error}") from None
    return context
