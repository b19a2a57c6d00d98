"""A full-text search: what is asked for, and what is found."""

from __future__ import annotations

from dataclasses import dataclass

from taskd.domain.model import Status, Task


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Which tasks to find. `owner` None: all owners (only for who sees all).

    `text` is in the syntax of `websearch_to_tsquery` (PostgreSQL manual, 12.3.2), as its user wrote it; `prefix` takes its
    last word also for the beginning of a word. `cursor` is the `next_cursor` of the page before.
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
