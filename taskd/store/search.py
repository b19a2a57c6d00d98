"""Full-text search over titles and descriptions; `domain.search` says in which order it lists what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from taskd.domain.highlight import marked
from taskd.domain.search import (
    HINT,
    PLACEHOLDER,
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
from taskd.errors import ConfigError
from taskd.store.pool import Database, Row, Runner, Session
from taskd.store.rows import task_of
from taskd.store.statements import Statement, compose, load

_SQL = load("search")

MOST = 1000
"""Matches that are ranked together: the newest."""

PATIENCE = 5.0
"""Seconds that a statement may take; afterwards `Unavailable`."""

DEFAULT_CONFIG = "pg_catalog.russian"


START = SearchPlace(0, False, None, None)
"""Before everything."""


class SearchStore:
    """Finds tasks of one database.

    Args:
        config: see `SearchStore.config`.
        most: see `MOST`.
        patience: see `PATIENCE`.
    """

    def __init__(
        self, database: Database, config: str = DEFAULT_CONFIG, *, most: int = MOST, patience: float = PATIENCE
    ) -> None:
        self._database = database
        self.config = config
        """The text search configuration that the documents are made with."""
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
        async with self._database.transaction() as session:
            await session.execute(_SQL["limits"], str(round(self._patience * 1000)))
            words = await self._parse(session, query)
            if words is None:
                return SearchPage((), 0, hint=HINT)
            return await self._page(session, query, words, place)

    async def _parse(self, session: Session, query: SearchQuery) -> str | None:
        """Return the query in the database's words; None: it has none."""
        text = with_plain_quotes(query.text)
        last = last_word(text) if query.prefix else None
        if last is None:
            row = await session.fetchrow(_SQL["parse"], self.config, text)
        else:
            args = (self.config, text, last[1], last[0], PLACEHOLDER)
            row = await session.fetchrow(_SQL["parse_prefix"], *args)
        assert row is not None, "a statement without FROM has a row"
        words: str = row["query"]
        return words if row["nodes"] else None

    async def _page(self, session: Session, query: SearchQuery, words: str, place: SearchPlace) -> SearchPage:
        """Return a page from a place on, over as many windows as it takes to fill it."""
        results: list[Found] = []
        while True:
            left = query.limit - len(results)
            rows = await self._look(session, replace(query, limit=left), words, place)
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

    async def _look(self, session: Session, query: SearchQuery, words: str, place: SearchPlace) -> Sequence[Row]:
        statement, args = page_statement(query, words, self.config, self._most, place)
        return await session.fetch(statement, *args)


def page_statement(
    query: SearchQuery, words: str, config: str, most: int, place: SearchPlace = START
) -> tuple[Statement, list[Any]]:
    """Return the statement of a page, and its arguments.

    Args:
        words: the query as `parse` gives it.
        config: the text search configuration.
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
        "query": words,
        "config": config,
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


async def documents(database: Runner) -> str:
    """Return the full name of the text search configuration that the documents are made with."""
    name: str = await database.fetchval(_SQL["documents"])
    return name


async def configure(database: Runner, name: str, *, rebuild: bool) -> str:
    """Return the full name of a text search configuration, with which all documents are made from now on.

    Args:
        name: with or without its schema.
        rebuild: make the documents anew if they are made with another; False: only if there are none.

    Raises:
        ConfigError: the database has none of that name, or the documents are made with another.
    """
    row = await database.fetchrow(_SQL["config"], name)
    assert row is not None, "meta has a row"
    present: str = row["present"]
    wanted: str | None = row["wanted"]
    if wanted is None:
        raise ConfigError(f"TASKD_SEARCH_CONFIG: the database has no text search configuration {name}")
    if wanted != present:
        if row["has_tasks"] and not rebuild:
            raise ConfigError(
                f"TASKD_SEARCH_CONFIG is {wanted}, but the documents are made with {present}: `taskd migrate` with the"
                " same setting makes them anew, which takes a while"
            )
        await database.execute(_SQL["set_config"], wanted)
    return wanted
