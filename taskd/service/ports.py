"""What transports see of the service: as narrow as their need, and the same for a local and a remote one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from taskd.domain.event import LOG_START, Event, EventKey
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryPage, HistoryQuery
from taskd.domain.model import ListQuery, NewTask, Page, Task, User
from taskd.domain.search import SearchPage, SearchQuery
from taskd.domain.token import Token


class Tasks(Protocol):
    """Every call respects owners: another user's task is `NotFound`. All raise `Unavailable` in an outage."""

    async def create(self, user: User, draft: NewTask, key: str | None = None) -> Task:
        """Create one task. The same idempotency `key`, owner and draft give the first answer again for 24 hours.

        Raises:
            KeyReused: the key came with another draft.
        """

    async def create_many(self, user: User, drafts: Sequence[NewTask], key: str | None = None) -> list[Task]:
        """Create 1 to 1000 tasks, all or none, in their order."""

    async def get(self, user: User, task_id: UUID) -> Task:
        """Return one task, or raise `NotFound`."""

    async def list(self, user: User, query: ListQuery) -> Page:
        """Return one page of tasks; `Invalid` when the cursor is none, or of another list."""

    async def update(self, user: User, task_id: UUID, patch: TaskPatch, if_match: frozenset[int] | None = None) -> Task:
        """Change a task and return it.

        Raises:
            NotFound: no such task of this user.
            StaleVersion: its version is not in `if_match`.
            Conflict: it no longer waits, and the patch is not of title and description only.
        """

    async def delete(self, user: User, task_id: UUID, if_match: frozenset[int] | None = None) -> Task:
        """Remove a task and return it as it was; `Conflict` while it runs."""

    async def cancel(self, user: User, task_id: UUID) -> Task:
        """Cancel a task; a running one gets `cancel_requested_at` until its handler has stopped."""

    async def retry(self, user: User, task_id: UUID) -> Task:
        """Put a failed or cancelled task back to `new`, its attempts counted anew."""

    async def history(self, user: User, query: HistoryQuery) -> HistoryPage:
        """Return one page of a task's events that are still kept, oldest first."""

    async def search(self, user: User, query: SearchQuery) -> SearchPage:
        """Return one page of the tasks whose title or description match, best first.

        Raises:
            Invalid: the cursor is none, or of another search.
        """


class View(NamedTuple):
    """A task, or a page of a list, as it is answered: encoded once, with the tag that names this state of it."""

    body: bytes
    """UTF-8 JSON: the task, or `{"tasks": […], "next_cursor": …}`."""
    etag: str
    """The opaque tag, without quotes: a task's version, a page's digest."""
    owner: str = ""
    """Whose task it is; empty for a page."""
    next_cursor: str | None = None
    """Of a page: where the next one begins, None at the end."""
    key: object = None
    """What the cache of this process has it under; None: it has not."""


class Reads(Protocol):
    """What transports read, through the cache where there is one. All raise `Unavailable` in an outage."""

    async def task(self, user: User, task_id: UUID) -> View:
        """Return one task, or raise `NotFound`."""

    async def page(self, user: User, query: ListQuery) -> View:
        """Return one page of tasks, which `parse_list_query` bound to what this user may see."""


class Resume(NamedTuple):
    """Where a reader goes on; `recovered` False: events before `key` are gone, so it must read its tasks anew."""

    key: EventKey
    recovered: bool


Listener = Callable[[Sequence[Event]], None]


class Feed(Protocol):
    """The event log as transports read it."""

    @property
    def position(self) -> EventKey:
        """The key of the last event that was handed to listeners."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` in the event loop with each batch of new events; the answer ends that."""

    async def read(self, after: EventKey, limit: int, until: EventKey = LOG_START) -> Sequence[Event]:
        """Return up to `limit` events behind `after`, in the log's order; fewer mean that there are no more.

        They go on to `position`, and to `until` where that lies behind it: who asks was told of it by another process.
        """

    def age(self, at: datetime) -> float:
        """Return the seconds since a moment of the database's clock."""

    def now(self) -> datetime | None:
        """Return the present moment by the database's clock, or None while nothing is known of it."""

    def cursor(self, key: EventKey) -> str:
        """Return the opaque text of a place."""

    async def resume(self, text: str) -> Resume:
        """Return the place of a cursor's text; `Invalid` when it is none."""


class Tokens(Protocol):
    """Who may call."""

    async def find(self, digests: Sequence[bytes]) -> Sequence[Token]:
        """Return those of these tokens, by their SHA-256, that are good now; in any order.

        Raises:
            Unavailable: an outage.
        """


Hold = Callable[[User, Callable[[], None]], Callable[[], None]]
"""Calls the second argument once the user's token is good no longer; the answer ends that."""


class PartHealth(NamedTuple):
    """Whether one part works, and what is to be said about it."""

    ok: bool
    detail: str


class Health(Protocol):
    """Whether the process is fit to be sent work."""

    def ready(self) -> Mapping[str, PartHealth]:
        """Return each part's health; the process is ready when all are ok."""
