"""`TaskService`: gRPC translated to the service, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from taskd.cache.ttl import TTLCache
from taskd.domain.access import Access, require
from taskd.domain.codec import decode_task
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.event import LOG_START, Event
from taskd.domain.fields import Bad, Id
from taskd.domain.forms import parse_batch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.history import parse_history_query
from taskd.domain.model import NewTask, Page, Task, User
from taskd.domain.search import SearchPage, parse_search_query
from taskd.errors import Fault, Invalid
from taskd.rpc.calls import Answer, Send
from taskd.rpc.heavy import Heavy, size_of
from taskd.rpc.hot import Shown
from taskd.rpc.messages import event_message, new_task_body, patch_body, status_texts, task_message, time_text
from taskd.rpc.watch import READ, Watches
from taskd.service.ports import Feed, Reads, Tasks, View
from taskd.v1 import taskd_pb2 as pb

KEPT_ANSWERS, KEPT_BYTES, KEPT_FOR = 1000, 8 * 1024 * 1024, 60.0
"""Answers that are kept encoded, their bytes with those of the views that they are of, and for how many seconds."""

EVENTS, MOST_EVENTS = 200, 1000
EVENTS_BYTES = 2 * 1024 * 1024
"""Bytes of one answer of events: what a client takes without being told to take more."""

_KEY = re.compile("[!-~]{1,255}")
_ID = Id()
_ORDERS = {pb.LIST_ORDER_NEWEST_FIRST: "-created_at", pb.LIST_ORDER_OLDEST_FIRST: "created_at"}


class TaskCalls:
    """The calls of `TaskService`.

    Args:
        tasks: changes them, and reads what is not cached.
        reads: reads through the cache.
        feed: the event log.
        watches: follows it for callers.
    """

    def __init__(self, tasks: Tasks, reads: Reads, feed: Feed, watches: Watches) -> None:
        self._tasks = tasks
        self._reads = reads
        self._feed = feed
        self._watches = watches
        self._kept: TTLCache[bytes, bytes] = TTLCache(ttl=KEPT_FOR, entries=KEPT_ANSWERS, size=KEPT_BYTES)
        self._last: tuple[bytes, bytes] = b"", b""
        self._heavy = Heavy()

    async def create_task(self, user: User, request: pb.CreateTaskRequest) -> Message:
        key = _key(request.idempotency_key)
        with _named(lambda field: f"task.{field}"):
            draft = parse_new_task(new_task_body(request.task))
        return pb.CreateTaskResponse(task=task_message(await self._tasks.create(user, draft, key)))

    async def batch_create_tasks(self, user: User, request: pb.BatchCreateTasksRequest) -> Answer:
        key = _key(request.idempotency_key)

        def parsed() -> list[NewTask]:
            return parse_batch({"tasks": [new_task_body(draft) for draft in request.tasks]})

        tasks = await self._tasks.create_many(user, await self._heavy.run(request.ByteSize(), parsed), key)
        return await self._made(tasks, lambda: pb.BatchCreateTasksResponse(tasks=map(task_message, tasks)))

    async def get_task(self, user: User, request: pb.GetTaskRequest) -> Answer:
        task_id = _id(request.id)
        if self._is_behind(request.not_before):
            return pb.GetTaskResponse(task=task_message(await self._tasks.get(user, task_id)))
        view = await self._reads.task(user, task_id)
        return await self._answer(view, lambda value: pb.GetTaskResponse(task=task_message(decode_task(value))))

    async def list_tasks(self, user: User, request: pb.ListTasksRequest) -> Answer:
        with _named(_list_name):
            query = parse_list_query(user, _list_pairs(request))
            if self._is_behind(request.not_before):
                page = await self._tasks.list(user, query)
                return await self._made(page.tasks, lambda: _page_message(page))
            view = await self._reads.page(user, query)
        return await self._answer(
            view,
            lambda value: pb.ListTasksResponse(
                tasks=[task_message(decode_task(task)) for task in value["tasks"]],
                next_cursor=value["next_cursor"],
            ),
        )

    async def update_task(self, user: User, request: pb.UpdateTaskRequest) -> Message:
        task_id = _id(request.id)
        with _named(lambda field: f"patch.{field}"):
            patch = parse_patch(patch_body(request.patch, request.update_mask.paths))
            task = await self._tasks.update(user, task_id, patch, _versions(request.if_versions))
        return pb.UpdateTaskResponse(task=task_message(task))

    async def delete_task(self, user: User, request: pb.DeleteTaskRequest) -> Message:
        task = await self._tasks.delete(user, _id(request.id), _versions(request.if_versions))
        return pb.DeleteTaskResponse(task=task_message(task))

    async def cancel_task(self, user: User, request: pb.CancelTaskRequest) -> Message:
        return pb.CancelTaskResponse(task=task_message(await self._tasks.cancel(user, _id(request.id))))

    async def retry_task(self, user: User, request: pb.RetryTaskRequest) -> Message:
        return pb.RetryTaskResponse(task=task_message(await self._tasks.retry(user, _id(request.id))))

    async def search_tasks(self, user: User, request: pb.SearchTasksRequest) -> Answer:
        with _named(_list_name):
            page = await self._tasks.search(user, parse_search_query(user, _search_pairs(request)))
        return await self._made([found.task for found in page.results], lambda: search_message(page))

    async def list_task_events(self, user: User, request: pb.ListTaskEventsRequest) -> Answer:
        page = await self._tasks.history(user, parse_history_query(_id(request.id), _page_pairs(request)))
        tasks = [event.task for event in page.events]
        return await self._made(
            tasks,
            lambda: pb.ListTaskEventsResponse(events=map(self._event, page.events), next_cursor=page.next_cursor or ""),
        )

    async def list_events(self, user: User, request: pb.ListEventsRequest) -> Message:
        sees = self.sight(user, request.all_owners)
        limit = request.limit or EVENTS
        if not 1 <= limit <= MOST_EVENTS:
            raise Invalid([Fault("limit", f"must be between 1 and {MOST_EVENTS}")])
        if not request.after:
            return pb.ListEventsResponse(cursor=self._feed.cursor(self._feed.position), recovered=True)
        decode_log_cursor(request.after)
        until = decode_log_cursor(request.not_before, "not_before").key if request.not_before else LOG_START
        place = await self._feed.resume(request.after)
        answer = pb.ListEventsResponse(cursor=self._feed.cursor(place.key), recovered=place.recovered)
        key, size, left = place.key, 0, limit
        while left:
            asked = min(left, READ)
            events = await self._feed.read(key, asked, until)
            for event in events:
                if sees(event):
                    size += len(event.json)
                    if answer.events and size > EVENTS_BYTES:
                        answer.more = True
                        return answer
                    answer.events.append(self._event(event))
                key, answer.cursor = event.key, self._feed.cursor(event.key)
            left -= len(events)
            if len(events) < asked:
                return answer
        answer.more = True
        return answer

    async def watch_tasks(self, user: User, request: pb.WatchTasksRequest, send: Send) -> None:
        await self._watches.run(request, self.sight(user, request.all_owners), send)

    def sight(self, user: User, all_owners: bool) -> Callable[[Event], bool]:
        """Return what says whether a user gets an event.

        Raises:
            Forbidden: all owners', and the user may not see them.
        """
        if all_owners:
            require(user, Access.ADMIN)
        if all_owners or user.sees_all:
            return lambda event: True
        return lambda event: event.task.owner == user.name

    def _is_behind(self, not_before: str) -> bool:
        """Return whether the cache here may not have been told yet of what the caller has."""
        return bool(not_before) and decode_log_cursor(not_before, "not_before").key > self._feed.position

    def _event(self, event: Event) -> pb.TaskEvent:
        return event_message(event, self._feed.cursor(event.key))

    async def _made(self, tasks: Sequence[Task], make: Callable[[], Message]) -> bytes:
        """Return a message of tasks, encoded."""
        return await self._heavy.run(size_of(tasks), lambda: make().SerializeToString())

    async def _answer(self, view: View, make: Callable[[Any], Message]) -> Shown:
        """Return the message that a view is; a cached view is the same object each time, so it is made once."""
        self._kept.expire(16)
        if (found := self._kept.get(view.body)) is not None:
            return Shown(found, view)

        def made() -> bytes:
            # Whoever waited for his turn may find that the one before him has made it.
            body, answer = self._last
            return answer if body is view.body else make(json.loads(view.body)).SerializeToString()

        found = await self._heavy.run(len(view.body), made)
        # For who waits, and no longer: it may be of many megabytes.
        self._last = (view.body, found) if self._heavy.waiting else (b"", b"")
        self._kept.put(view.body, found, size=len(view.body) + len(found))
        return Shown(found, view)


def _page_message(page: Page) -> pb.ListTasksResponse:
    return pb.ListTasksResponse(tasks=map(task_message, page.tasks), next_cursor=page.next_cursor or "")


def search_message(page: SearchPage) -> pb.SearchTasksResponse:
    """Return what a search found as a message."""
    return pb.SearchTasksResponse(
        results=[
            pb.SearchResult(
                task=task_message(found.task),
                rank=found.rank,
                highlights=pb.SearchHighlights(title=found.title, description=found.description),
            )
            for found in page.results
        ],
        total=page.total,
        total_exact=page.exact,
        next_cursor=page.next_cursor or "",
        hint=page.hint or "",
    )


@contextmanager
def _named(rename: Callable[[str], str]) -> Iterator[None]:
    """Name fields as the proto does; the checks name them as REST does."""
    try:
        yield
    except Invalid as error:
        raise Invalid([Fault(rename(fault.field), fault.message) for fault in error.faults]) from None


def _list_name(field: str) -> str:
    return "statuses" if field == "status" else field


def _id(text: str) -> UUID:
    found = _ID.read(text)
    if isinstance(found, Bad):
        raise Invalid([Fault("id", found.message)])
    return found


def _key(text: str) -> str | None:
    if text and not _KEY.fullmatch(text):
        raise Invalid([Fault("idempotency_key", "must be 1 to 255 visible ASCII characters")])
    return text or None


def _versions(versions: Iterable[int]) -> frozenset[int] | None:
    return frozenset(versions) or None


def _list_pairs(request: pb.ListTasksRequest) -> Iterator[tuple[str, str]]:
    yield from _common_pairs(request)
    if request.owner:
        yield "owner", request.owner
    for name in ("created_after", "created_before"):
        if request.HasField(name):
            yield name, time_text(getattr(request, name))
    if request.order:
        yield "order", _ORDERS.get(request.order, "no such order")


def _search_pairs(request: pb.SearchTasksRequest) -> Iterator[tuple[str, str]]:
    yield "query", request.query
    if request.prefix:
        yield "prefix", "true"
    yield from _common_pairs(request)


def _common_pairs(request: pb.ListTasksRequest | pb.SearchTasksRequest) -> Iterator[tuple[str, str]]:
    for text in status_texts(request.statuses):
        yield "status", text
    if request.kind:
        yield "kind", request.kind
    yield from _page_pairs(request)


def _page_pairs(
    request: pb.ListTasksRequest | pb.SearchTasksRequest | pb.ListTaskEventsRequest,
) -> Iterator[tuple[str, str]]:
    if request.limit:
        yield "limit", str(request.limit)
    if request.cursor:
        yield "cursor", request.cursor
