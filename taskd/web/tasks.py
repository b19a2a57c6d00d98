"""The task calls: REST translated to the service, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from taskd.domain.access import Access
from taskd.domain.codec import encode_task, encode_tasks
from taskd.domain.fields import Text
from taskd.domain.forms import LIST, Entry, parse_batch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.history import HISTORY, encode_history, parse_history_query
from taskd.domain.model import Task
from taskd.errors import Conflict, Fault, Forbidden, Invalid, KeyReused, NotFound, StaleVersion
from taskd.http1 import etag
from taskd.service.ports import Reads, Tasks, View
from taskd.web.conditions import IF_MATCH, IF_NONE_MATCH, if_match, if_none_match
from taskd.web.message import JSON, Request, Response
from taskd.web.middleware import link_next
from taskd.web.router import Reply, Route

MERGE_PATCH = "application/merge-patch+json"

KEY = Entry(
    Text(1, 255, "[!-~]{1,255}"),
    "the same key, owner and body give the first answer again for 24 hours; with another body it is refused",
    None,
)

_KEY = re.compile(rb"[!-~]{1,255}")
_VERSION = re.compile("[1-9][0-9]{0,18}")


class TaskCalls:
    """Handlers of the task routes."""

    def __init__(self, tasks: Tasks, reads: Reads) -> None:
        self._tasks = tasks
        self._reads = reads

    async def create(self, request: Request) -> Response:
        """`POST /tasks`"""
        key = _idempotency_key(request)
        task = await self._tasks.create(request.user, parse_new_task(request.json()), key)
        return _one(task, 201, ("Location", f"/tasks/{task.id}"))

    async def create_many(self, request: Request) -> Response:
        """`POST /tasks/batch`"""
        key = _idempotency_key(request)
        tasks = await self._tasks.create_many(request.user, parse_batch(request.json()), key)
        return Response(201, b'{"tasks":%b}' % encode_tasks(tasks))

    async def list(self, request: Request) -> Response:
        """`GET /tasks`"""
        tags = if_none_match(request)
        view = await self._reads.page(request.user, parse_list_query(request.user, request.query))
        # Weak (RFC 9110 8.8.3): it says that the tasks are the same, and is for no precondition of a change.
        answer = _viewed(view, tags, "W/")
        if view.next_cursor is None:
            return answer
        return answer.with_headers(link_next(request.path, request.query, view.next_cursor))

    async def get(self, request: Request) -> Response:
        """`GET /tasks/{id}`"""
        tags = if_none_match(request)
        return _viewed(await self._reads.task(request.user, _id(request)), tags)

    async def update(self, request: Request) -> Response:
        """`PATCH /tasks/{id}`"""
        versions = _versions(request)
        patch = parse_patch(request.json((MERGE_PATCH, JSON)))
        return _one(await self._tasks.update(request.user, _id(request), patch, versions))

    async def delete(self, request: Request) -> Response:
        """`DELETE /tasks/{id}`"""
        await self._tasks.delete(request.user, _id(request), _versions(request))
        return Response(204)

    async def cancel(self, request: Request) -> Response:
        """`POST /tasks/{id}/cancel`"""
        return _one(await self._tasks.cancel(request.user, _id(request)))

    async def retry(self, request: Request) -> Response:
        """`POST /tasks/{id}/retry`"""
        return _one(await self._tasks.retry(request.user, _id(request)))

    async def history(self, request: Request) -> Response:
        """`GET /tasks/{id}/events`"""
        page = await self._tasks.history(request.user, parse_history_query(_id(request), request.query))
        answer = Response(200, encode_history(page))
        if page.next_cursor is None:
            return answer
        return answer.with_headers(link_next(request.path, request.query, page.next_cursor))

    def routes(self) -> Sequence[Route]:
        """Return the routes of these calls."""
        task = Reply("the task", "Task", ("ETag",))
        made = Reply("the new task", "Task", ("ETag", "Location"))
        batch = Reply("the new tasks", "Tasks")
        page = Reply("a page of tasks", "Page", ("ETag", "Link"))
        same = Reply("it has not changed", None, ("ETag",))
        if_none = {"If-None-Match": IF_NONE_MATCH}
        history = Reply("a page of the task's events, oldest first", "Events", ("Link",))
        one = "/tasks/{id}"
        key, match = {"Idempotency-Key": KEY}, {"If-Match": IF_MATCH}
        return (
            Route(
                "POST", "/tasks", self.create, "Create a task", {201: made}, Access.TASKS, body="NewTask", headers=key,
                errors=[KeyReused],
            ),
            Route(
                "POST", "/tasks/batch", self.create_many, "Create 1 to 1000 tasks, all or none", {201: batch},
                Access.TASKS, body="NewTasks", headers=key, errors=[KeyReused],
            ),
            Route(
                "GET", "/tasks", self.list, "List tasks", {200: page, 304: same}, Access.TASKS, headers=if_none,
                query=LIST, own_query=True, errors=[Forbidden],
            ),
            Route(
                "GET", one, self.get, "Read a task", {200: task, 304: same}, Access.TASKS, headers=if_none,
                errors=[NotFound],
            ),
            Route(
                "PATCH", one, self.update, "Change a task", {200: task}, Access.TASKS, body="TaskPatch",
                body_types=(MERGE_PATCH, JSON), headers=match, errors=[NotFound, Conflict, StaleVersion],
            ),
            Route(
                "DELETE", one, self.delete, "Remove a task that does not run", {204: Reply("it is gone")}, Access.TASKS,
                headers=match, errors=[NotFound, Conflict, StaleVersion],
            ),
            Route(
                "POST", f"{one}/cancel", self.cancel, "Cancel a task", {200: task}, Access.TASKS,
                errors=[NotFound, Conflict],
            ),
            Route(
                "POST", f"{one}/retry", self.retry, "Put a failed or cancelled task back to the queue", {200: task},
                Access.TASKS, errors=[NotFound, Conflict],
            ),
            Route(
                "GET", f"{one}/events", self.history, "Read a task's history", {200: history}, Access.TASKS,
                query=HISTORY, own_query=True, errors=[NotFound],
            ),
        )  # fmt: skip


def _id(request: Request) -> UUID:
    assert request.task_id is not None, "the route has an {id}"
    return request.task_id


def _one(task: Task, status: int = 200, *more: tuple[str, str]) -> Response:
    return Response(status, encode_task(task), headers=[("ETag", etag.quote(str(task.version))), *more])


def _viewed(view: View, tags: etag.Tags | None, strength: str = "") -> Response:
    """Return what was read, or 304 if the client knows it (RFC 9110 13.1.2)."""
    headers = [("ETag", strength + etag.quote(view.etag))]
    if tags is not None and tags.has_weak(view.etag):
        return Response(304, headers=headers)
    return Response(200, view.body, headers=headers, view=view)


def _idempotency_key(request: Request) -> str | None:
    given = request.head.get(b"idempotency-key")
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        raise Invalid([Fault("Idempotency-Key", "must be 1 to 255 visible ASCII characters")])
    return given.decode("ascii")


def _versions(request: Request) -> frozenset[int] | None:
    """Return the versions that `If-Match` names; None: any. A tag that was never given out matches none."""
    tags = if_match(request)
    if tags is None or tags.everything:
        return None
    return frozenset(int(tag) for tag in tags.strong if _VERSION.fullmatch(tag))
