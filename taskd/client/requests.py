"""What a program asks for, as messages: keyword arguments in, checked by the same forms as any client's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from taskd.domain.arguments import pairs, plain
from taskd.domain.fields import Bad, Id
from taskd.domain.forms import KIND, parse_batch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.history import parse_history_query
from taskd.domain.model import Role, Status, User
from taskd.domain.search import parse_search_query
from taskd.errors import Fault, Invalid
from taskd.rpc import messages
from taskd.rpc.messages import STATUS, new_task_message, patch_message
from taskd.v1 import taskd_pb2 as pb

TaskId = UUID | str
Fields = Mapping[str, Any]

_ANYBODY = User("", Role.ADMIN)
"""Stands for the caller: what he may see is the server's to say."""


def _given(query: Fields) -> Iterator[tuple[str, str]]:
    """Return a query as the parameters of a URL would have it; what is None is not given."""
    return pairs({name: value for name, value in query.items() if value is not None})


def id_text(task_id: TaskId) -> str:
    """Return a task's id as text.

    Raises:
        Invalid: it is none.
    """
    found = task_id if isinstance(task_id, UUID) else Id().check(task_id)
    if isinstance(found, Bad):
        raise Invalid([Fault("id", found.message)])
    return str(found)


def new_task(fields: Fields) -> pb.NewTask:
    """Return the message of a new task's fields; raises `Invalid`."""
    return new_task_message(parse_new_task(plain(fields)))


def new_tasks(tasks: Iterable[Fields]) -> list[pb.NewTask]:
    """Return the messages of 1 to 1000 new tasks; raises `Invalid`."""
    return list(map(new_task_message, parse_batch({"tasks": [plain(fields) for fields in tasks]})))


def update_request(task_id: TaskId, fields: Fields, if_versions: Iterable[int] | None) -> pb.UpdateTaskRequest:
    """Return the request that changes fields of a task; raises `Invalid`."""
    found = parse_patch(plain(fields))
    request = pb.UpdateTaskRequest(id=id_text(task_id), patch=patch_message(found), if_versions=versions(if_versions))
    request.update_mask.paths.extend(found.fields)
    return request


def versions(asked: Iterable[int] | None) -> list[int]:
    """Return the versions of which a task must have one; none at all can be had only by one that no task has."""
    return [] if asked is None else list(asked) or [0]


def list_request(query: Fields) -> pb.ListTasksRequest:
    """Return the request for a page of a list; raises `Invalid`."""
    return messages.list_request(parse_list_query(_ANYBODY, _given(query)))


def history_request(task_id: TaskId, query: Fields) -> pb.ListTaskEventsRequest:
    """Return the request for a page of a task's history; raises `Invalid`."""
    return messages.history_request(parse_history_query(UUID(id_text(task_id)), _given(query)))


def watch_request(
    after: str | None, kinds: Sequence[str], statuses: Sequence[str], tasks: Sequence[TaskId], all_owners: bool
) -> pb.WatchTasksRequest:
    """Return the request for the events of some tasks; raises `Invalid` with every fault."""
    faults = [
        Fault(f"kinds[{n}]", kind.message) for n, kind in enumerate(map(KIND.check, kinds)) if isinstance(kind, Bad)
    ]
    if unknown := [status for status in statuses if status not in set(Status)]:
        faults.append(Fault("statuses", f"must be among: {', '.join(Status)}; not {unknown[0]!r}"))
    if faults:
        raise Invalid(faults)
    return pb.WatchTasksRequest(
        after=after or "",
        kinds=kinds,
        statuses=[STATUS[Status(status)] for status in statuses],
        tasks=map(id_text, tasks),
        all_owners=all_owners,
    )


def search_request(text: str, query: Fields) -> pb.SearchTasksRequest:
    """Return the request for a page of a search; raises `Invalid`."""
    return messages.search_request(parse_search_query(_ANYBODY, _given({"query": text, **query})))
