"""What transports read and change, through the cache.

There are two views of one store. Whoever serves clients goes through here; the dispatcher and the workers go to the
store itself, so that their traffic is no read of the cache, and is never delayed or misled by one.

A task is kept under its id, whoever asks for it, and its owner is looked at with each answer. A page is kept under its
query. What ends it is the change of a task that it may show: a page's scope is its owner (or all of them) and, if it is
of one status, that status, so that the list of new tasks outlives what happens to running ones, and one user's changes
leave the lists of another alone. An event names the task's status before and after; of a user's own change only the
latter is known, so it ends the lists of every status.

A change ends its scopes here before its caller is answered, so that whoever was answered and then reads sees it; and
in every process when the log tells of it, which also covers what workers do, and what was committed although the answer
was lost. What the log tells of a change of this process is no news, and leaves alone what was loaded since. Where the
log can't be followed, an entry's time to live is what bounds its age.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from taskd.cache.flight import Flights
from taskd.cache.memory import MemoryCache
from taskd.cache.port import Cache, Key
from taskd.domain.event import Event
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryPage, HistoryQuery
from taskd.domain.model import ListQuery, NewTask, Page, Status, Task, User
from taskd.domain.search import SearchPage, SearchQuery
from taskd.errors import Conflict, NotFound, Rejected, StaleVersion
from taskd.metrics.catalog import Catalog
from taskd.metrics.registry import Counter
from taskd.service.ports import Tasks, View
from taskd.service.tasks import not_found
from taskd.service.views import ALL, LIST, TASK, event_scopes, list_scopes, own_scopes, page_key, page_view, task_view

T = TypeVar("T")

REMEMBERED = 10_000
"""Changes of this process that the log has not told of yet. One that is forgotten costs a load, and nothing else."""

_WAITING = (Status.NEW, Status.SCHEDULED)


class CachedReads:
    """Implements `ports.Reads`.

    Args:
        tasks: loads what is not in the cache.
        cache: None: everything is loaded.
        catalog: counts hits, misses, and who waited for another's load.
    """

    def __init__(self, tasks: Tasks, cache: Cache[View] | None, catalog: Catalog | None = None) -> None:
        self._tasks = tasks
        self._cache = cache
        self._memory = cache if isinstance(cache, MemoryCache) else None
        self._flights: Flights[View] = Flights()
        self._own: OrderedDict[UUID, int] = OrderedDict()
        requests = (catalog or Catalog()).cache_requests
        self._count = {
            (name, result): requests.labels(name, result)
            for name in (TASK, LIST)
            for result in ("hit", "miss", "coalesced")
        }
        self._doubts: list[Callable[[], None]] = []

    async def task(self, user: User, task_id: UUID) -> View:
        """Return one task; see `ports.Reads`."""
        view = await self._read(user, Key(TASK, str(task_id)), lambda: self._tasks.get(user, task_id), task_view)
        if not user.sees_all and view.owner != user.name:
            raise not_found(task_id)
        return view

    async def page(self, user: User, query: ListQuery) -> View:
        """Return one page of tasks; see `ports.Reads`."""
        return await self._read(user, page_key(query), lambda: self._tasks.list(user, query), page_view)

    def still(self, view: View) -> Counter | None:
        """Return what counts hits, if a read would give this very view now, out of this process's memory."""
        key = view.key
        if self._memory is None or not isinstance(key, Key) or not self._memory.keeps(key, view):
            return None
        return self._count[key.cache, "hit"]

    def on_change(self, doubt: Callable[[], None]) -> None:
        """Have `doubt` called whenever what is kept has changed."""
        self._doubts.append(doubt)

    def observe(self, events: Sequence[Event]) -> None:
        """End what the log says has changed; a listener of the feed.

        The first of them: whoever else is told of a change must not read what was before it.
        """
        if self._cache is not None:
            self.end({scope for event in events if not self._is_own(event) for scope in event_scopes(event)})

    async def end_missing(self, user: User, task_id: UUID) -> None:
        """End what is kept of a task whose user was told that there is none; another's stays untouched."""
        if self._cache is not None:
            view = (await self._cache.get(Key(TASK, str(task_id)))).value
            if view is not None and (user.sees_all or view.owner == user.name):
                self.end((str(task_id),))

    def own(self, task_id: UUID, version: int) -> None:
        """Say that this process made this version of a task, and has ended what that changed."""
        if self._cache is not None:
            self._own[task_id] = max(version, self._own.get(task_id, 0))
            if len(self._own) > REMEMBERED:
                self._own.popitem(last=False)

    def _is_own(self, event: Event) -> bool:
        """Return whether what the event changed was ended before, when that or a later version was made here."""
        made = self._own.get(event.task.id, 0)
        if made == event.task.version:
            del self._own[event.task.id]
        return event.task.version <= made

    def end(self, scopes: Iterable[str]) -> None:
        """Give nobody who asks from now on what was loaded for these scopes before."""
        if self._cache is not None:
            scopes = tuple(scopes)
            self._cache.invalidate(scopes)
            self._flights.land(scopes)
            self._changed()

    def begin_anew(self) -> None:
        """Forget everything: the database is another one."""
        if self._cache is not None:
            self._own.clear()
            self._cache.clear()
            self._flights.land_all()
            self._changed()

    def _changed(self) -> None:
        for doubt in self._doubts:
            doubt()

    async def _read(
        self, user: User, key: Key, load: Callable[[], Awaitable[T]], view_of: Callable[[T, Key | None], View]
    ) -> View:
        cache = self._cache
        if cache is None:
            return view_of(await load(), None)
        found = await cache.get(key) if self._memory is None else self._memory.look(key)
        if found.value is not None:
            self._count[key.cache, "hit"].inc()
            return found.value

        result = "coalesced"

        async def fill() -> View:
            nonlocal result
            result = "miss"
            view = view_of(await load(), None if self._memory is None else key)
            if found.ticket is not None:
                cache.put(key, found.ticket, view)
                # It may be newer than one that was kept.
                self._changed()
            return view

        try:
            # Each caller's load is his own: what one may not see is no answer to another.
            asked = (key, user.name, user.sees_all, user.token)
            view, _ = await self._flights.run(key.scope, asked, fill)
        finally:
            self._count[key.cache, result].inc()
        return view


class CachedTasks:
    """Implements `ports.Tasks`: passes every call on, and ends what a change may have changed before it returns.

    Reads are not cached here: who wants what is cached asks `CachedReads`.
    """

    def __init__(self, tasks: Tasks, reads: CachedReads) -> None:
        self._tasks = tasks
        self._reads = reads

    async def create(self, user: User, draft: NewTask, key: str | None = None) -> Task:
        """Create one task; see `ports.Tasks`."""
        task = await self._changing(self._tasks.create(user, draft, key), list_scopes(user.name, _WAITING))
        self._reads.own(task.id, task.version)
        return task

    async def create_many(self, user: User, drafts: Sequence[NewTask], key: str | None = None) -> list[Task]:
        """Create tasks, all or none; see `ports.Tasks`."""
        tasks = await self._changing(self._tasks.create_many(user, drafts, key), list_scopes(user.name, _WAITING))
        for task in tasks:
            self._reads.own(task.id, task.version)
        return tasks

    async def get(self, user: User, task_id: UUID) -> Task:
        """Return one task; see `ports.Tasks`."""
        return await self._tasks.get(user, task_id)

    async def list(self, user: User, query: ListQuery) -> Page:
        """Return one page of tasks; see `ports.Tasks`."""
        return await self._tasks.list(user, query)

    async def update(self, user: User, task_id: UUID, patch: TaskPatch, if_match: frozenset[int] | None = None) -> Task:
        """Change a task; see `ports.Tasks`."""
        return await self._changing_one(user, task_id, self._tasks.update(user, task_id, patch, if_match))

    async def delete(self, user: User, task_id: UUID, if_match: frozenset[int] | None = None) -> Task:
        """Remove a task; see `ports.Tasks`."""
        task = await self._changing_one(user, task_id, self._tasks.delete(user, task_id, if_match))
        # The version that its deletion is told under.
        self._reads.own(task_id, task.version + 1)
        return task

    async def cancel(self, user: User, task_id: UUID) -> Task:
        """Cancel a task; see `ports.Tasks`."""
        return await self._changing_one(user, task_id, self._tasks.cancel(user, task_id))

    async def retry(self, user: User, task_id: UUID) -> Task:
        """Put a task back to `new`; see `ports.Tasks`."""
        return await self._changing_one(user, task_id, self._tasks.retry(user, task_id))

    async def history(self, user: User, query: HistoryQuery) -> HistoryPage:
        """Return one page of a task's events; see `ports.Tasks`."""
        return await self._tasks.history(user, query)

    async def search(self, user: User, query: SearchQuery) -> SearchPage:
        """Return one page of what was found; see `ports.Tasks`."""
        return await self._tasks.search(user, query)

    async def _changing_one(self, user: User, task_id: UUID, change: Awaitable[Task]) -> Task:
        scopes = (str(task_id), *list_scopes(user.name, ALL))
        try:
            task = await self._changing(change, scopes)
        except (Conflict, StaleVersion):
            # Its caller, who may see the task, was just told of a state that the cache may not know yet.
            self._reads.end((str(task_id), *self._told(user)))
            raise
        except NotFound:
            await self._reads.end_missing(user, task_id)
            self._reads.end(self._told(user))
            raise
        if task.owner != user.name:
            self._reads.end(list_scopes(task.owner, ALL))
        self._reads.own(task_id, task.version)
        return task

    @staticmethod
    def _told(user: User) -> Iterable[str]:
        """Return the lists of whose staleness a refusal tells this user: his own.

        Not those of all owners, or anybody could keep them empty by calls that are refused; an admin may.
        """
        return list_scopes(user.name, ALL) if user.sees_all else own_scopes(user.name, ALL)

    async def _changing(self, change: Awaitable[T], scopes: Iterable[str]) -> T:
        try:
            changed = await change
        except Rejected:
            # Nothing was changed.
            raise
        except BaseException:
            # It may have been committed all the same.
            self._reads.end(scopes)
            raise
        self._reads.end(scopes)
        return changed
