"""The task calls for other programs: the same as an embedding program has, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from grpc_health.v1 import health_pb2

from taskd.client.calls import Connection, new_key
from taskd.client.requests import (
    TaskId,
    history_request,
    id_text,
    list_request,
    new_task,
    new_tasks,
    search_request,
    update_request,
    versions,
    watch_request,
)
from taskd.client.watch import Events, EventsMissed, Stream, Watch
from taskd.domain.event import EventType
from taskd.domain.history import HistoryPage
from taskd.domain.model import Page, Task
from taskd.domain.search import Found, SearchPage
from taskd.errors import NotFound, StartError, Unavailable
from taskd.rpc.messages import TYPE_OF, event_of, task_of
from taskd.tls import Trust
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from taskd.v1.taskd_pb2_grpc import TaskServiceAsyncStub


class Client:
    """A taskd elsewhere; to be used in `async with`.

    Every call raises the classes of `taskd.errors`: `Invalid` for bad arguments, `NotFound`, `Conflict`,
    `StaleVersion`, `Unavailable` when nobody answers in time, and so on. Reads are tried again when a server goes away
    under them. `request_id`, with any call, is for the server's log: 1 to 128 visible ASCII characters.

    Args:
        target: `host:port` of its gRPC. A name with several addresses: calls go to them in turn.
        user: who calls, for a server that takes it by the caller's word.
        token: of the user.
        trust: by TLS: `Trust(ca, cert, key)`, paths of PEM files: who signs the server's certificate, and the client's
            own, if it needs one. None: no TLS.
        timeout: seconds that a call may take; the server stops working on it then.
    """

    def __init__(
        self,
        target: str,
        *,
        user: str | None = None,
        token: str | None = None,
        trust: Trust | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._connection = Connection(target, user, token, timeout, trust)
        self._calls: TaskServiceAsyncStub | None = None

    async def __aenter__(self) -> Self:
        self._connection.open()
        self._calls = TaskServiceStub(self._connection.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls and streams that go on are cancelled. Safe twice."""
        self._calls = None
        await self._connection.close()

    async def create(
        self, title: str, *, idempotency_key: str | None = None, request_id: str | None = None, **fields: Any
    ) -> Task:
        """Create a task, once, even if the answer is lost and the call is tried again.

        Args:
            idempotency_key: up to 255 visible ASCII characters: the same key and fields give the same task for 24
                hours. None: a new one, so that the tries of this one call create one task; it costs the server a
                row. Empty: none, and one try.
            fields: `kind`, `description`, `payload` (a dict), `priority`, `run_at` (aware datetime or RFC 3339 text),
                `max_attempts`, `timeout_seconds` (seconds).
        """
        key = new_key() if idempotency_key is None else idempotency_key
        request = pb.CreateTaskRequest(task=new_task({"title": title, **fields}), idempotency_key=key)
        call = self._connection.call_again if key else self._connection.call
        return task_of((await call(self._stub.CreateTask, request, request_id)).task)

    async def create_many(
        self,
        tasks: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> Sequence[Task]:
        """Create 1 to 1000 tasks, all or none, each a mapping of the fields that `create` takes; once, as there."""
        key = new_key() if idempotency_key is None else idempotency_key
        request = pb.BatchCreateTasksRequest(tasks=new_tasks(tasks), idempotency_key=key)
        call = self._connection.call_again if key else self._connection.call
        answer = await call(self._stub.BatchCreateTasks, request, request_id)
        return [task_of(message) for message in answer.tasks]

    async def get(self, task_id: TaskId, *, request_id: str | None = None) -> Task:
        """Return one task."""
        request = pb.GetTaskRequest(id=id_text(task_id))
        return task_of((await self._connection.call(self._stub.GetTask, request, request_id)).task)

    async def update(
        self,
        task_id: TaskId,
        *,
        if_versions: Iterable[int] | None = None,
        request_id: str | None = None,
        **fields: Any,
    ) -> Task:
        """Change fields of a task, all but `kind` of those that `create` takes; None takes one back to its default.

        Args:
            if_versions: change only one of these versions of it, else `StaleVersion`.
        """
        request = update_request(task_id, fields, if_versions)
        return task_of((await self._connection.call(self._stub.UpdateTask, request, request_id)).task)

    async def delete(
        self, task_id: TaskId, *, if_versions: Iterable[int] | None = None, request_id: str | None = None
    ) -> Task:
        """Remove a task that does not run, and return it as it was."""
        request = pb.DeleteTaskRequest(id=id_text(task_id), if_versions=versions(if_versions))
        return task_of((await self._connection.call(self._stub.DeleteTask, request, request_id)).task)

    async def cancel(self, task_id: TaskId, *, request_id: str | None = None) -> Task:
        """Cancel a task; one that runs is `running` with `cancel_requested_at` until its handler has stopped."""
        request = pb.CancelTaskRequest(id=id_text(task_id))
        return task_of((await self._connection.call(self._stub.CancelTask, request, request_id)).task)

    async def retry(self, task_id: TaskId, *, request_id: str | None = None) -> Task:
        """Put a failed or cancelled task back to `new`."""
        request = pb.RetryTaskRequest(id=id_text(task_id))
        return task_of((await self._connection.call(self._stub.RetryTask, request, request_id)).task)

    async def history(self, task_id: TaskId, *, request_id: str | None = None, **query: Any) -> HistoryPage:
        """Return one page of a task's events that are still kept, oldest first.

        Args:
            query: `limit` (1 to 200), `cursor` (`next_cursor` of the page before).
        """
        request = history_request(task_id, query)
        answer = await self._connection.call(self._stub.ListTaskEvents, request, request_id)
        return HistoryPage(tuple(map(event_of, answer.events)), answer.next_cursor or None)

    async def list(self, *, request_id: str | None = None, **query: Any) -> Page:
        """Return one page of tasks.

        Args:
            query: `status` (one or several), `kind`, `owner`, `created_after`, `created_before`, `limit` (1 to 200),
                `cursor` (`next_cursor` of the page before), `order` (`created_at` or `-created_at`).
        """
        answer = await self._connection.call(self._stub.ListTasks, list_request(query), request_id)
        return Page(tuple(map(task_of, answer.tasks)), answer.next_cursor or None)

    async def iterate(self, *, request_id: str | None = None, **query: Any) -> AsyncIterator[Task]:
        """Yield the tasks of all pages of `list`, each page read when the one before is used up."""
        cursor = query.pop("cursor", None)
        while True:
            page = await self.list(request_id=request_id, cursor=cursor, **query)
            for task in page.tasks:
                yield task
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def search(self, text: str, *, request_id: str | None = None, **query: Any) -> SearchPage:
        """Return one page of the tasks whose title or description match, best first.

        Args:
            text: words, "phrases", `or`, `-not`.
            query: `prefix` (True: the last word may be the beginning of one), `status`, `kind`, `limit`, `cursor`.
        """
        answer = await self._connection.call(self._stub.SearchTasks, search_request(text, query), request_id)
        return SearchPage(
            results=tuple(
                Found(task_of(one.task), one.rank, one.highlights.title, one.highlights.description)
                for one in answer.results
            ),
            total=answer.total,
            exact=answer.total_exact,
            next_cursor=answer.next_cursor or None,
            hint=answer.hint or None,
        )

    def events(
        self,
        *,
        after: str | None = None,
        kinds: Sequence[str] = (),
        statuses: Sequence[str] = (),
        tasks: Sequence[TaskId] = (),
        all_owners: bool = False,
    ) -> Events:
        """Return the events of tasks, for `async for cursor, event in …`: in the log's order, none lost, none twice.

        It never ends by itself, and connects again when its connection breaks or it was too slow. `EventsMissed` is
        raised when some are no longer kept; iterate again to go on behind them. If nobody answers at the beginning,
        that is `Unavailable`.

        Args:
            after: the cursor behind which to begin. None: from now on, which is the first event asked for, or `start`.
            kinds, statuses, tasks: only of these; none given, of any.
            all_owners: those of all owners (admin).
        """
        return Events(self._watch(watch_request(after, kinds, statuses, tasks, all_owners)))

    async def wait(self, task_id: TaskId, timeout: float | None = None, *, request_id: str | None = None) -> Task:
        """Return a task once it is done, failed or cancelled.

        Args:
            timeout: seconds; None: as long as it takes.

        Raises:
            TimeoutError: it is not so in that time.
            NotFound: there is no such task, or it was deleted.
            Unavailable: nobody answers at the beginning. Later on, it waits for the server to come back.
        """
        wanted = id_text(task_id)
        watch = self._watch(watch_request(None, (), (), [wanted], False))
        try:
            async with asyncio.timeout(timeout):
                while True:
                    events = await _next_events(watch)
                    if ended := end_among(events):
                        return ended
                    if events:
                        continue
                    # Each stream begins before this look, so no end falls in between. The server's signs of life are a
                    # reason to look too: by several servers, the one that is asked may know less than the other told.
                    # Somebody answered the watch: if nobody answers this look, the watch goes on to tell.
                    with contextlib.suppress(Unavailable):
                        task = await self._get_again(wanted, request_id)
                        if task.is_final:
                            return task
        finally:
            watch.close()

    async def health(self, service: str = "") -> bool:
        """Return whether the server says that it is ready.

        Args:
            service: `taskd.v1.TaskService`, `taskd.v1.WorkerService`, or empty: the server as a whole.

        Raises:
            Unavailable: nobody answers.
            NotFound: there is no such service.
        """
        check = self._connection.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        answer = await self._connection.call(check, health_pb2.HealthCheckRequest(service=service))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _get_again(self, wanted: str, request_id: str | None) -> Task:
        request = pb.GetTaskRequest(id=wanted)
        return task_of((await self._connection.call_again(self._stub.GetTask, request, request_id)).task)

    @property
    def _stub(self) -> TaskServiceAsyncStub:
        if self._calls is None:
            raise StartError("the client is not open: use it in `async with`")
        return self._calls

    def _watch(self, request: pb.WatchTasksRequest) -> Watch:
        metadata = self._connection.metadata

        def begin(request: pb.WatchTasksRequest) -> Stream:
            return self._stub.WatchTasks(request, metadata=metadata)

        return Watch(begin, request)


async def _next_events(watch: Watch) -> Sequence[pb.TaskEvent]:
    """Return the next events; none when a stream has begun, when some were missed, and as a sign of life."""
    try:
        return (await watch.next()).events
    except EventsMissed:
        return ()


def end_among(events: Iterable[pb.TaskEvent]) -> Task | None:
    """Return the task at its end, if it is among these events of it."""
    for event in events:
        if TYPE_OF.get(event.type) is EventType.DELETED:
            raise NotFound("the task was deleted")
        task = task_of(event.task)
        if task.is_final:
            return task
    return None
