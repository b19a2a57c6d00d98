"""The service of a taskd elsewhere, as transports see one: `ports.Tasks` over `TaskService`.

Each call goes out as its own caller, with his words and his token: what he may do is decided where the tasks are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from taskd import log
from taskd.domain.cursor import LogCursor, encode_log_cursor
from taskd.domain.event import EventKey
from taskd.domain.forms import TaskPatch
from taskd.domain.history import HistoryPage, HistoryQuery
from taskd.domain.model import ListQuery, NewTask, Page, Task, User
from taskd.domain.search import Found, SearchPage, SearchQuery
from taskd.errors import Fault, Invalid, TaskdError, TooLarge
from taskd.rpc.identity import USER, USER_BYTES
from taskd.rpc.messages import (
    event_of,
    history_request,
    list_request,
    new_task_message,
    patch_message,
    search_request,
    task_of,
)
from taskd.rpc.status import AWAY, TRAILER, error_of
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub

ANSWER_WITHIN = 15.0
"""Seconds for one call; the service stops working on it then."""

NO_VERSION = 0
"""Stands for a version that no task has."""

FRESH = encode_log_cursor(LogCursor(bytes(8), EventKey((1 << 63) - 1, 0)))
"""A place that no log has reached: what is no older than it comes from the database.

A server's cache is told of changes made through another one a moment after their callers are. Whoever asks here may
have made them, and must see them; what is asked for often is in the cache on this side.
"""

T = TypeVar("T")

_PREFIX = re.compile(r"^(task|patch)\.")
_NAMES = {"statuses": "status", "idempotency_key": "Idempotency-Key"}


def metadata_of(user: User) -> Iterator[tuple[str, str | bytes]]:
    """Yield what goes along with a user's call: who he is, what he proved it with, the request that it is for."""
    if user.name.isascii() and user.name.isprintable() and user.name == user.name.strip():
        yield USER, user.name
    else:
        yield USER_BYTES, user.name.encode()
    if user.authorization is not None:
        yield "authorization", user.authorization
    if (request_id := log.request_id.get()) is not None:
        yield "x-request-id", request_id
    if (traceparent := log.traceparent.get()) is not None:
        yield "traceparent", traceparent


class RemoteTasks:
    """Implements `ports.Tasks` by asking.

    Every method raises what the service answers, in REST's words, and `Unavailable` when nobody answers in time.

    Args:
        channel: to the service; whoever made it closes it.
        seconds: that a call may take.
    """

    def __init__(self, channel: grpc.aio.Channel, seconds: float = ANSWER_WITHIN) -> None:
        self._stub = TaskServiceStub(channel)
        self._seconds = seconds

    async def create(self, user: User, draft: NewTask, key: str | None = None) -> Task:
        """Create one task; see `ports.Tasks`."""
        request = pb.CreateTaskRequest(task=new_task_message(draft), idempotency_key=key or "")
        return task_of((await self._ask(self._stub.CreateTask, user, request)).task)

    async def create_many(self, user: User, drafts: Sequence[NewTask], key: str | None = None) -> list[Task]:
        """Create tasks, all or none; see `ports.Tasks`."""
        request = pb.BatchCreateTasksRequest(tasks=map(new_task_message, drafts), idempotency_key=key or "")
        answer = await self._ask(self._stub.BatchCreateTasks, user, request)
        return [task_of(message) for message in answer.tasks]

    async def get(self, user: User, task_id: UUID) -> Task:
        """Return one task; see `ports.Tasks`."""
        request = pb.GetTaskRequest(id=str(task_id), not_before=FRESH)
        return task_of((await self._ask(self._stub.GetTask, user, request)).task)

    async def list(self, user: User, query: ListQuery) -> Page:
        """Return one page of tasks; see `ports.Tasks`. One too large for a message is asked for in parts."""
        try:
            answer = await self._ask(self._stub.ListTasks, user, list_message(user, query))
        except TooLarge:
            if query.limit == 1:
                raise
            first = await self.list(user, query._replace(limit=query.limit // 2))
            if first.next_cursor is None:
                return first
            left = query.limit - len(first.tasks)
            rest = await self.list(user, query._replace(limit=left, cursor=first.next_cursor))
            return Page((*first.tasks, *rest.tasks), rest.next_cursor)
        return Page(tuple(map(task_of, answer.tasks)), answer.next_cursor or None)

    async def update(self, user: User, task_id: UUID, patch: TaskPatch, if_match: frozenset[int] | None = None) -> Task:
        """Change a task; see `ports.Tasks`."""
        request = pb.UpdateTaskRequest(
            id=str(task_id),
            patch=patch_message(patch),
            update_mask=FieldMask(paths=patch.fields),
            if_versions=_versions(if_match),
        )
        return task_of((await self._ask(self._stub.UpdateTask, user, request)).task)

    async def delete(self, user: User, task_id: UUID, if_match: frozenset[int] | None = None) -> Task:
        """Remove a task; see `ports.Tasks`."""
        request = pb.DeleteTaskRequest(id=str(task_id), if_versions=_versions(if_match))
        return task_of((await self._ask(self._stub.DeleteTask, user, request)).task)

    async def cancel(self, user: User, task_id: UUID) -> Task:
        """Cancel a task; see `ports.Tasks`."""
        return task_of((await self._ask(self._stub.CancelTask, user, pb.CancelTaskRequest(id=str(task_id)))).task)

    async def retry(self, user: User, task_id: UUID) -> Task:
        """Put a task back to `new`; see `ports.Tasks`."""
        return task_of((await self._ask(self._stub.RetryTask, user, pb.RetryTaskRequest(id=str(task_id)))).task)

    async def history(self, user: User, query: HistoryQuery) -> HistoryPage:
        """Return one page of a task's events; see `ports.Tasks`."""
        answer = await self._ask(self._stub.ListTaskEvents, user, history_request(query))
        return HistoryPage(tuple(map(event_of, answer.events)), answer.next_cursor or None)

    async def search(self, user: User, query: SearchQuery) -> SearchPage:
        """Return one page of what was found; see `ports.Tasks`."""
        answer = await self._ask(self._stub.SearchTasks, user, search_request(query))
        return SearchPage(
            results=tuple(_found(result) for result in answer.results),
            total=answer.total,
            exact=answer.total_exact,
            next_cursor=answer.next_cursor or None,
            hint=answer.hint or None,
        )

    async def _ask(self, call: Callable[..., Any], user: User, request: object) -> Any:
        try:
            return await call(request, timeout=self._seconds, metadata=tuple(metadata_of(user)))
        except grpc.aio.AioRpcError as error:
            raise in_words_of_rest(answered(error)) from error


def answered(error: grpc.aio.AioRpcError) -> TaskdError:
    """Return the error that a call was answered with.

    What gRPC itself has to say of a connection names addresses that are not for clients; it is in `error`.
    """
    trailers = tuple(error.trailing_metadata() or ())
    known = any(name == TRAILER for name, _ in trailers)
    message = (error.details() or "") if known or error.code() not in AWAY else "the upstream does not answer"
    return error_of(error.code(), message, trailers)


def in_words_of_rest(error: TaskdError) -> TaskdError:
    """Return an error whose fields are named as REST names them."""
    if not isinstance(error, Invalid):
        return error
    named = [(_PREFIX.sub("", fault.field), fault.message) for fault in error.faults]
    return Invalid([Fault(_NAMES.get(field, field), message) for field, message in named])


def _versions(if_match: Collection[int] | None) -> Collection[int]:
    """Return the versions of a precondition; one that nothing can meet names a version that no task has."""
    return () if if_match is None else if_match or (NO_VERSION,)


def list_message(user: User, query: ListQuery) -> pb.ListTasksRequest:
    """Return a user's query as a request. Whose tasks he sees is known there, so only who sees all names an owner."""
    request = list_request(query if user.sees_all else query._replace(owner=None))
    request.not_before = FRESH
    return request


def _found(result: pb.SearchResult) -> Found:
    highlights = result.highlights
    return Found(task_of(result.task), result.rank, highlights.title, highlights.description)
