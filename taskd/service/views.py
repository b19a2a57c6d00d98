"""What is cached, under which key, and what ends it: decided without a cache. `cached` says why it is so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from taskd.cache.port import Key
from taskd.domain.codec import encode_page, encode_task
from taskd.domain.event import Event, EventType
from taskd.domain.model import ListQuery, Page, Status, Task
from taskd.service.ports import View

TASK, LIST = "task", "list"
"""The two caches, as metrics call them."""

OVERHEAD = 200
"""Bytes of a view beside its body: the object, its strings, their headers."""

ALL = tuple(Status)

_ANY = ""
"""Stands for the owner of a list of all owners, and for the status of a list of several."""


@lru_cache(maxsize=1000)
def own_scopes(owner: str, statuses: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scopes of the lists of this owner alone that show tasks in these statuses."""
    return tuple(f"{owner}\0{status}" for status in (_ANY, *statuses))


@lru_cache(maxsize=1000)
def list_scopes(owner: str, statuses: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scopes of all lists that show tasks of an owner in these statuses."""
    return own_scopes(owner, statuses) + own_scopes(_ANY, statuses)


def event_scopes(event: Event) -> Iterator[str]:
    """Yield what an event ends."""
    yield str(event.task.id)
    statuses: tuple[Status, ...] = (event.task.status,)
    if event.was is not None:
        statuses = (event.task.status, event.was)
    elif event.type is not EventType.CREATED:
        statuses = ALL
    yield from list_scopes(event.task.owner, statuses)


def page_key(query: ListQuery) -> Key:
    """Return the key of a page. The name is a digest: a query may be long, and is not to be read back."""
    statuses = sorted(set(query.statuses))
    scope = f"{query.owner or _ANY}\0{statuses[0] if len(statuses) == 1 else _ANY}"
    times = (query.created_after, query.created_before)
    what = repr((statuses, query.kind, times, query.limit, query.newest_first, query.cursor))
    return Key(LIST, scope, hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())


def task_view(task: Task, key: Key | None = None) -> View:
    """Return a task as it is answered; `key` is what this process's cache will have it under."""
    return View(encode_task(task), str(task.version), task.owner, None, key)


def page_view(page: Page, key: Key | None = None) -> View:
    """Return a page as it is answered; `key` is what this process's cache will have it under."""
    body = encode_page(page.tasks, page.next_cursor)
    return View(body, hashlib.blake2b(body, digest_size=12).hexdigest(), "", page.next_cursor, key)


def view_size(view: View) -> int:
    """Return about how many bytes a view takes."""
    return len(view.body) + OVERHEAD


def pack_view(view: View) -> bytes:
    """Return a view as bytes, for a cache that is elsewhere. Neither names nor JSON texts hold a NUL."""
    return b"\0".join((view.etag.encode(), view.owner.encode(), (view.next_cursor or "").encode(), view.body))


def unpack_view(data: bytes) -> View:
    """Return the view that `pack_view` packed.

    Raises:
        ValueError: it is none.
    """
    etag, owner, next_cursor, body = data.split(b"\0", 3)
    return View(body, etag.decode(), owner.decode(), next_cursor.decode() or None)
