"""Full-text search over titles and descriptions; `domain.search` says in which order it lists what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from taskd.domain.highlight import marked
from taskd.domain.search import (
    HINT,
    Found,
    Place,
    SearchPage,
    SearchPlace,
    SearchQuery,
    Window,
    decode_search_cursor,
    encode_search_cursor,
    last_word,
    with_plain_quotes,
)
from taskd.errors import ConfigError, Unavailable
from taskd.store.pool import Database, Row, Runner, Session
from taskd.store.rows import task_of
from taskd.store.statements import Statement, compose, load

_SQL = load("search")

MOST = 1000
"""Matches that are ranked together: the newest."""

PATIENCE = 5.0
"""Seconds that a statement may take; afterwards `Unavailable`."""

FIRST_PATIENCE = 1.0
"""Seconds that a statement may take in the way that the planner chose; afterwards it goes by the index of words."""

START = SearchPlace(0, False, None, None)
"""Before everything."""


class Words(NamedTuple):
    """A query in the words of the documents, and the text search configuration that both are made with.

    `indexable` False: it only says which words are not to be there, and the index knows only which are.
    """

    query: str
    config: str
    indexable: bool


class SearchStore:
    """Finds tasks of one database.

    Args:
        most: see `MOST`.
        patience: see `PATIENCE`.
        first_patience: see `FIRST_PATIENCE`.
    """

    def __init__(
        self,
        database: Database,
        *,
        most: int = MOST,
        patience: float = PATIENCE,
        first_patience: float = FIRST_PATIENCE,
    ) -> None:
        self._database = database
        self._first_patience = min(first_patience, patience)
        self._most = most
        self._patience = patience

    async def search(self, query: SearchQuery) -> SearchPage:
        """Return one page of what matches, the best of each window first.

        Raises:
            Invalid: the cursor is none, or of another search.
            Unavailable: the database is away, or takes too long.
        """
        place = START
        if query.cursor is not None:
            place = decode_search_cursor(query, query.cursor)
        try:
            return await self._search(query, place, self._first_patience, by_words=False)
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise
        # The planner knows how many tasks have a word, and not that all of them are old: then it reads from the newest
        # on, for long. By the words, the time depends on how many have them.
        return await self._search(query, place, self._patience, by_words=True)

    async def _search(self, query: SearchQuery, place: SearchPlace, patience: float, *, by_words: bool) -> SearchPage:
        async with self._database.transaction() as session:
            await session.execute(_SQL["limits"], str(round(patience * 1000)))
            words = await self._parse(session, query)
            if words is None:
                return SearchPage((), 0, hint=HINT)
            if by_words and words.indexable:
                await session.execute(_SQL["by_words"])
            return await self._page(session, query, words, place)

    async def _parse(self, session: Session, query: SearchQuery) -> Words | None:
        """Return the query in the database's words; None: it has none."""
        text = with_plain_quotes(query.text)
        last = last_word(text) if query.prefix else None
        if last is None:
            row = await session.fetchrow(_SQL["parse"], text)
        else:
            row = await session.fetchrow(_SQL["parse_prefix"], text, last[1], last[0], last[2])
        assert row is not None, "meta has a row"
        return Words(row["query"], row["config"], row["indexable"]) if row["nodes"] else None

    async def _page(self, session: Session, query: SearchQuery, words: Words, place: SearchPlace) -> SearchPage:
        """Return a page from a place on, over as many windows as it takes to fill it."""
        results: list[Found] = []
        while True:
            left = query.limit - len(results)
            rows = await self._look(session, query._replace(limit=left), words, place)
            found = [row for row in rows if row["id"] is not None]
            results += map(_found, found[:left])
            number, more = rows[0]["number"], place.more if place.window else rows[0]["more"]
            total, exact = place.before + number, not more
            if len(found) > left:
                window = Window(*_bounds(rows[0], place), found[left - 1]["rank"], found[left - 1]["id"])
                behind = SearchPlace(place.before, more, window, None)
            elif more:
                behind = SearchPlace(total, False, None, _bounds(rows[0], place)[1])
                if len(results) < query.limit:
                    place = behind
                    continue
            else:
                return SearchPage(tuple(results), total, exact)
            return SearchPage(tuple(results), total, exact, encode_search_cursor(query, behind))

    async def _look(self, session: Session, query: SearchQuery, words: Words, place: SearchPlace) -> Sequence[Row]:
        statement, args = page_statement(query, words, self._most, place)
        return await session.fetch(statement, *args)


def page_statement(
    query: SearchQuery, words: Words, most: int, place: SearchPlace = START
) -> tuple[Statement, list[Any]]:
    """Return the statement of a page, and its arguments.

    Args:
        words: the query as `parse` gives it.
        most: matches of a window.
        place: where the page begins.
    """
    window, older = place.window, place.older
    given = {
        "statuses": bool(query.statuses),
        "owner": query.owner is not None,
        "kind": query.kind is not None,
        "older": older is not None,
        "known": window is not None,
        "behind": window is not None,
        "new": window is None,
    }
    values: dict[str, Any] = {
        "query": words.query,
        "config": words.config,
        "statuses": [status.value for status in query.statuses],
        "owner": query.owner,
        "kind": query.kind,
        "most": most,
        "limit": query.limit,
    }
    if older is not None:
        values |= {"older_at": older.created_at, "older_id": older.id}
    if window is not None:
        values |= {"newest_at": window.newest.created_at, "newest_id": window.newest.id}
        values |= {"oldest_at": window.oldest.created_at, "oldest_id": window.oldest.id}
        values |= {"rank": window.rank, "id": window.id}
    return compose(_SQL["page"], values, frozenset(flag for flag, wanted in given.items() if wanted))


def _bounds(row: Row, place: SearchPlace) -> tuple[Place, Place]:
    """Return the bounds of the window that was looked at."""
    if place.window is not None:
        return place.window.newest, place.window.oldest
    return Place(row["newest_at"], row["newest_id"]), Place(row["oldest_at"], row["oldest_id"])


def _found(row: Row) -> Found:
    task = task_of(row)
    title, description = row["title_marked"], row["description_marked"]
    return Found(task, row["rank"], marked(task.title, title), marked(task.description, description))


class Configured(NamedTuple):
    """Full names of text search configurations: what the documents are made with, and what they are to be made with."""

    present: str
    wanted: str
    has_tasks: bool


async def configured(database: Runner, name: str) -> Configured:
    """Compare what the documents are made with to a text search configuration.

    Args:
        name: with or without its schema.

    Raises:
        ConfigError: the database has none of that name.
    """
    row = await database.fetchrow(_SQL["config"], name)
    assert row is not None, "meta has a row"
    if row["wanted"] is None:
        raise ConfigError(f"TASKD_SEARCH_CONFIG: the database has no text search configuration {name}")
    return Configured(row["present"], row["wanted"], row["has_tasks"])


async def configure(database: Database, name: str, *, rebuild: bool) -> Configured:
    """See to it that all documents are made with a text search configuration; return how it was before.

    Args:
        name: with or without its schema.
        rebuild: make the documents anew if they are made with another; False: only if there are none.

    Raises:
        ConfigError: the database has none of that name, or the documents are made with another.
    """
    before = await configured(database, name)
    if not _must_rebuild(before, rebuild):
        return before
    async with database.transaction() as session:
        await session.execute(load("schema")["lock"])
        # Looked at again: who had the lock may have done it, and who was storing a task is waited for.
        await session.execute(_SQL["lock_tasks"])
        before = await configured(session, name)
        if _must_rebuild(before, rebuild):
            await session.execute(_SQL["set_config"], before.wanted)
    return before


def _must_rebuild(found: Configured, may: bool) -> bool:
    if found.wanted == found.present:
        return False
    if found.has_tasks and not may:
        raise ConfigError(
            f"TASKD_SEARCH_CONFIG is {found.wanted}, but the documents are made with {found.present}: `taskd migrate`"
            " with the same setting makes them anew, which takes a while"
        )
    return True
