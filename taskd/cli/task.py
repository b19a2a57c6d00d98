"""`taskd task …`: a client of a running server, over gRPC. Tables for people, `--json` for programs."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from taskd.cli.caller import add_caller, token_of, trust_of
from taskd.cli.screen import event_line, has_colours, printable, printable_json, table
from taskd.client import Client, EventsMissed
from taskd.config import SETTINGS
from taskd.domain.codec import encode_page, encode_task
from taskd.domain.event import Event
from taskd.domain.model import Status, Task
from taskd.domain.search import encode_search_page

HERE = SETTINGS["grpc"].default

Call = Callable[[Client, argparse.Namespace], Awaitable[int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the calls, each with its own flags and those that all have."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--server", metavar="HOST:PORT", help=f"where its gRPC is (TASKD_GRPC; default {HERE})")
    add_caller(common)
    common.add_argument("--json", action="store_true", help="print JSON: what REST answers, and events one a line")
    calls = parser.add_subparsers(dest="call", metavar="CALL", required=True)

    def call(name: str, summary: str) -> argparse.ArgumentParser:
        description = summary[0].upper() + summary[1:] + "."
        return calls.add_parser(name, help=summary, description=description, parents=[common])

    create = call("create", "create a task")
    create.add_argument("title")
    create.add_argument("--kind")
    create.add_argument("--description")
    create.add_argument("--payload", metavar="JSON", type=_json_object)
    create.add_argument("--priority", type=int)
    create.add_argument("--run-at", metavar="TIME", help="RFC 3339; not before")
    create.add_argument("--max-attempts", type=int)
    create.add_argument("--timeout-seconds", type=float)
    create.add_argument("--wait", action="store_true", help="wait for its end: 0 if it is done, else 1")
    for name, summary in (
        ("get", "show a task"),
        ("cancel", "cancel a task"),
        ("retry", "put a failed or cancelled task back to the queue"),
    ):
        call(name, summary).add_argument("id", type=_id)
    _add_filters(call("list", "list tasks, newest first"))
    search = _add_filters(call("search", "find tasks by their words, best first"))
    search.add_argument("query", help='words, "phrases", or, -not')
    search.add_argument("--prefix", action="store_true", help="the last word may be the beginning of one")
    watch = call("watch", "show what happens to tasks, until Ctrl-C")
    watch.add_argument("id", nargs="*", type=_id, help="only these tasks")
    watch.add_argument("--kind", action="append", default=[], help="only tasks of this kind (repeatable)")
    watch.add_argument("--status", action="append", default=[], choices=list(Status), help="only these (repeatable)")
    watch.add_argument("--after", help="cursor behind which to begin; left out: from now on")


def _add_filters(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--status", action="append", default=[], choices=list(Status), help="only these (repeatable)")
    parser.add_argument("--kind", help="only tasks of this kind")
    parser.add_argument("--limit", type=int, help="tasks at the most (50)")
    parser.add_argument("--cursor", help="next_cursor of the page before")
    return parser


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a task's id") from None


def run(asked: argparse.Namespace) -> int:
    """Make one call."""
    target = asked.server or os.environ.get(SETTINGS["grpc"].variable) or HERE

    trust = trust_of(asked)

    async def go() -> int:
        async with Client(target, user=asked.user, token=token_of(asked), trust=trust) as client:
            return await _CALLS[asked.call](client, asked)

    return asyncio.run(go())


def _given(asked: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the arguments of these names that were given."""
    return {name: value for name in names if (value := getattr(asked, name)) not in (None, [], False)}


async def _create(client: Client, asked: argparse.Namespace) -> int:
    fields = ("kind", "description", "payload", "priority", "run_at", "max_attempts", "timeout_seconds")
    task = await client.create(asked.title, **_given(asked, *fields))
    if not asked.wait:
        _show(task, asked)
        return 0
    if sys.stderr.isatty():
        print(f"waiting for {task.id} …", file=sys.stderr)
    task = await client.wait(task.id)
    _show(task, asked)
    return 0 if task.status is Status.DONE else 1


async def _get(client: Client, asked: argparse.Namespace) -> int:
    _show(await client.get(asked.id), asked)
    return 0


async def _cancel(client: Client, asked: argparse.Namespace) -> int:
    _show(await client.cancel(asked.id), asked)
    return 0


async def _retry(client: Client, asked: argparse.Namespace) -> int:
    _show(await client.retry(asked.id), asked)
    return 0


async def _list(client: Client, asked: argparse.Namespace) -> int:
    page = await client.list(**_given(asked, "status", "kind", "limit", "cursor"))
    if asked.json:
        print(printable_json(encode_page(page.tasks, page.next_cursor).decode()))
        return 0
    print(table(page.tasks, has_colours()))
    _tell_next(page.next_cursor)
    return 0


async def _search(client: Client, asked: argparse.Namespace) -> int:
    page = await client.search(asked.query, **_given(asked, "prefix", "status", "kind", "limit", "cursor"))
    if asked.json:
        print(printable_json(encode_search_page(page).decode()))
        return 0
    print(table([found.task for found in page.results], has_colours()))
    print(page.hint or f"{page.total}{'' if page.exact else ' or more'} found", file=sys.stderr)
    _tell_next(page.next_cursor)
    return 0


async def _watch(client: Client, asked: argparse.Namespace) -> int:
    colours = has_colours()
    events = client.events(after=asked.after, kinds=asked.kind, statuses=asked.status, tasks=asked.id)
    while True:
        try:
            async for cursor, event in events:
                print(_event_json(cursor, event) if asked.json else event_line(event, colours), flush=True)
        except EventsMissed as error:
            print(f"taskd: {error}", file=sys.stderr)


_CALLS: Mapping[str, Call] = {
    "create": _create,
    "get": _get,
    "list": _list,
    "search": _search,
    "watch": _watch,
    "cancel": _cancel,
    "retry": _retry,
}


def _event_json(cursor: str, event: Event) -> str:
    return printable_json(f'{{"cursor":"{cursor}","event":{event.json.decode()}}}')


def _tell_next(cursor: str | None) -> None:
    if cursor is not None:
        print(f"there are more: --cursor {cursor}", file=sys.stderr)


def _show(task: Task, asked: argparse.Namespace) -> None:
    text = encode_task(task).decode()
    if asked.json:
        print(printable_json(text))
        return
    for name, value in json.loads(text).items():
        if value not in (None, "", {}):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{name:20} {printable(shown)}")
