"""What people see on a terminal: events as lines, tasks as a table."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from taskd.domain.event import Event, EventType
from taskd.domain.model import Status, Task

_RED, _GREEN, _YELLOW = 31, 32, 33

COLOUR_OF_EVENT: Mapping[EventType, int] = {
    EventType.DONE: _GREEN,
    EventType.FAILED: _RED,
    EventType.RETRYING: _YELLOW,
    EventType.CANCELLED: _YELLOW,
}
COLOUR_OF_STATUS: Mapping[Status, int] = {
    Status.DONE: _GREEN,
    Status.FAILED: _RED,
    Status.CANCELLED: _YELLOW,
}


def has_colours(stream: TextIO = sys.stdout) -> bool:
    """Return whether colours are wanted there: a terminal, and no `NO_COLOR` (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    """Return text that does to a terminal nothing but show."""
    return "".join(character if character.isprintable() else "�" for character in text)


def printable_json(text: str) -> str:
    """Return the same JSON value in text that does to a terminal nothing but show, and is one line.

    What others wrote may hold more than ASCII's control characters, which JSON has escaped anyway (RFC 8259 7).
    """
    if text.isprintable():
        return text
    # Below the space there can only be what stands between values.
    return "".join(mark if mark.isprintable() else " " if mark < " " else json.dumps(mark)[1:-1] for mark in text)


def _coloured(word: str, colour: int | None) -> str:
    return word if colour is None else f"\x1b[{colour}m{word}\x1b[0m"


def event_line(event: Event, colours: bool) -> str:
    """Return an event as a line."""
    task = event.task
    word = _coloured(f"{event.type.value:9}", COLOUR_OF_EVENT.get(event.type) if colours else None)
    more = ""
    if event.type is EventType.PROGRESS and task.progress is not None:
        more = f"  {task.progress:4.0%}"
    elif event.type in (EventType.RETRYING, EventType.FAILED) and task.error is not None:
        more = f"  attempt {task.error.attempt} of {task.max_attempts}: {printable(task.error.type)}"
    return f"  {event.at.astimezone():%H:%M:%S} {word} {task.kind:8} {printable(task.title)}{more}"


def table(tasks: Sequence[Task], colours: bool) -> str:
    """Return tasks as a table, one line each, as wide as the terminal."""
    width = shutil.get_terminal_size((120, 0)).columns
    kinds = max([4, *(len(task.kind) for task in tasks)])
    lines = [f"{'id':36}  {'status':9}  {'kind':{kinds}}  {'created':19}  title"]
    for task in tasks:
        status = _coloured(f"{task.status.value:9}", COLOUR_OF_STATUS.get(task.status) if colours else None)
        rest = f"{task.kind:{kinds}}  {task.created_at.astimezone():%Y-%m-%d %H:%M:%S}  "
        title = printable(task.title)
        room = max(20, width - 49 - len(rest))
        lines.append(f"{task.id}  {status}  {rest}{title if len(title) <= room else title[: room - 1] + '…'}")
    return "\n".join(lines)
