"""A full-text search: what is asked for, what is found, and the place where it goes on.

Whatever matches is listed in windows: of the newest thousand tasks that match the best come first, then of the thousand
before those, and so on. So a word that half of all tasks have is ranked as quickly as a rarer one. A cursor holds the
bounds of its window, so a window has the same tasks however many come and go around it, and the place in it by rank.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from taskd.domain.codec import dump_json, task_text
from taskd.domain.cursor import decode_place, encode_place
from taskd.domain.fields import Choice, Integer, ListOf, Text
from taskd.domain.forms import KIND, Entry, Form
from taskd.domain.model import Status, Task, User
from taskd.errors import Fault, Invalid

MAX_QUERY = 1000

HINT = "there is no word to search for: words such as «и» or «the», and signs, are in too many texts to tell them apart"


class SearchQuery(NamedTuple):
    """Which tasks to find. `owner` None: all owners (only for who sees all).

    `text` is in the syntax of `websearch_to_tsquery` (PostgreSQL manual, 12.3.2), as its user wrote it; `prefix` takes
    its last word also for the beginning of a word. `cursor` is the `next_cursor` of the page before.
    """

    owner: str | None
    text: str
    prefix: bool = False
    statuses: tuple[Status, ...] = ()
    kind: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One task that a search found.

    `title` and `description` are HTML: its words with those that were searched for in `<mark>`, all else escaped; of a
    long description only the parts around them.
    """

    task: Task
    rank: float
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of what was found, best first. `exact` False: there are at least `total`.

    `hint` says why nothing can be found, for a query that has no word to search for.
    """

    results: tuple[Found, ...]
    total: int
    exact: bool = True
    next_cursor: str | None = None
    hint: str | None = None


class Place(NamedTuple):
    """A task's place among all tasks by age."""

    created_at: datetime
    id: UUID


class Window(NamedTuple):
    """The tasks between two places, both included, among which a search goes on behind a rank and an id."""

    newest: Place
    oldest: Place
    rank: float
    id: UUID


class SearchPlace(NamedTuple):
    """Where a search goes on: in a window, or (`window` None) with the tasks that are older than a place.

    `before` is the number of matches in the windows before; `more` says that there are some behind the window.
    """

    before: int
    more: bool
    window: Window | None
    older: Place | None


SEARCH = Form(
    {
        "query": Entry(Text(0, MAX_QUERY), 'words in any of their forms, "phrases", `or`, `-not`'),
        "prefix": Entry(Choice(("true", "false")), "the last word may be the beginning of one", "false"),
        "status": Entry(ListOf(Choice(tuple(Status)), 1, 6), "only tasks in one of these", ()),
        "kind": Entry(KIND, "only tasks of this kind", None),
        "limit": Entry(Integer(1, 200), "results of a page", 50),
        "cursor": Entry(Text(1, 200), "`next_cursor` of the page before", None),
    }
)


def parse_search_query(user: User, pairs: Iterable[tuple[str, str]]) -> SearchQuery:
    """Return what `GET /search` is to find for a user.

    Raises:
        Invalid: with every fault.
    """
    faults: list[Fault] = []
    good = SEARCH.read(pairs, faults)
    if faults:
        raise Invalid(faults)
    return SearchQuery(
        owner=None if user.sees_all else user.name,
        text=good["query"],
        prefix=good.get("prefix") == "true",
        statuses=tuple(sorted({Status(text) for text in good.get("status", ())})),
        kind=good.get("kind"),
        limit=good.get("limit", 50),
        cursor=good.get("cursor"),
    )


_QUOTES = str.maketrans("“”„«»", '"' * 5)


def with_plain_quotes(text: str) -> str:
    """Return a query whose quotes are those that the database's syntax has."""
    return text.translate(_QUOTES)


_LAST_WORD = re.compile(r"(?:^|(?<=\s))[^\W_][\w-]*$")

PLACEHOLDER = "0taskd0prefix0"
"""Stands for the last word while a query is parsed: letters and digits mixed, which no dictionary changes. Zeros are
put behind it as long as the query has such a word itself."""


def last_word(text: str) -> tuple[str, str, str] | None:
    """Return the last word of a query, the query with a placeholder in its place, and the placeholder.

    None: the word can't be a beginning. It can't inside quotes, nor when it is negated.
    """
    match = _LAST_WORD.search(text)
    if match is None or text.count('"') % 2:
        return None
    placeholder = PLACEHOLDER
    while placeholder in text.lower():
        placeholder += "0"
    return match.group(), text[: match.start()] + placeholder, placeholder


_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHAPE = struct.Struct(">8sBIq16sq16sf16s")
_MORE, _IN_WINDOW = 1, 2
_NO_PLACE = Place(_ORIGIN, UUID(int=0))


def _digest(query: SearchQuery) -> bytes:
    what = repr((query.owner, query.text, query.prefix, query.statuses, query.kind))
    return hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def encode_search_cursor(query: SearchQuery, place: SearchPlace) -> str:
    """Return the cursor of a place in what a query finds."""
    window = place.window or Window(_NO_PLACE, place.older or _NO_PLACE, 0.0, _NO_PLACE.id)
    flags = (_MORE if place.more else 0) | (_IN_WINDOW if place.window else 0)
    newest, oldest = window.newest, window.oldest
    return encode_place(
        _SHAPE.pack(
            _digest(query),
            flags,
            min(place.before, 2**32 - 1),
            (newest.created_at - _ORIGIN) // _MICROSECOND,
            newest.id.bytes,
            (oldest.created_at - _ORIGIN) // _MICROSECOND,
            oldest.id.bytes,
            window.rank,
            window.id.bytes,
        )
    )


def decode_search_cursor(query: SearchQuery, text: str) -> SearchPlace:
    """Return the place that `encode_search_cursor` wrote.

    Raises:
        Invalid: no cursor, or one of another search; names `cursor`.
    """
    digest, flags, before, newest_at, newest_id, oldest_at, oldest_id, rank, id_ = decode_place(text, _SHAPE, "cursor")
    if digest != _digest(query):
        raise Invalid([Fault("cursor", "belongs to another search")])
    assert isinstance(flags, int) and isinstance(before, int) and isinstance(rank, float) and isinstance(id_, bytes)
    newest, oldest = _place(newest_at, newest_id), _place(oldest_at, oldest_id)
    window = Window(newest, oldest, rank, UUID(bytes=id_)) if flags & _IN_WINDOW else None
    return SearchPlace(before, bool(flags & _MORE), window, None if window else oldest)


def _place(microseconds: object, id_: object) -> Place:
    assert isinstance(microseconds, int) and isinstance(id_, bytes)
    try:
        return Place(_ORIGIN + microseconds * _MICROSECOND, UUID(bytes=id_))
    except OverflowError:
        raise Invalid([Fault("cursor", "is not a cursor that was given out here")]) from None


def encode_search_page(page: SearchPage) -> bytes:
    """Return `{"results", "total", "next_cursor", "hint"}` as UTF-8 JSON."""
    results = ",".join(
        f'{{"task":{task_text(found.task)},"rank":{found.rank!r},"highlights":'
        f'{{"title":{dump_json(found.title)},"description":{dump_json(found.description)}}}}}'
        for found in page.results
    )
    relation = "eq" if page.exact else "gte"
    return (
        f'{{"results":[{results}],"total":{{"value":{page.total},"relation":"{relation}"}}'
        f',"next_cursor":{dump_json(page.next_cursor)},"hint":{dump_json(page.hint)}}}'
    ).encode()
