"""What a program asks for, as messages: keyword arguments in, checked by the same forms as any client's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from taskd.domain.codec import dump_json, format_time, read_json
from taskd.domain.fields import Bad, Id
from taskd.domain.forms import KIND, parse_batch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.model import ListQuery, Role, Status, User
from taskd.domain.search import parse_search_query
from taskd.errors import Fault, Invalid
from taskd.rpc.messages import STATUS, new_task_message, timestamp
from taskd.v1 import taskd_pb2 as pb

TaskId = UUID | str
Fields = Mapping[str, Any]

_ANYBODY = User("", Role.ADMIN)
"""Stands for the caller: what he may see is the server's to say."""


def _plain(fields: Fields) -> Any:
    """Return the fields as a client's JSON would have them, so that one set of checks does for all."""
    dated = {name: format_time(value) if isinstance(value, datetime) else value for name, value in fields.items()}
    try:
        return read_json(dump_json(dated).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid([Fault("payload", f"has no form in JSON: {error}")]) from None


def _pairs(query: Fields) -> Iterator[tuple[str, str]]:
    """Yield a query as the parameters of a URL would have it; what is None is not given."""
    for name, value in query.items():
        for one in () if value is None else value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, bool):
                yield name, str(one).lower()
            else:
                yield name, format_time(one) if isinstance(one, datetime) else str(one)


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
    return new_task_message(parse_new_task(_plain(fields)))


def new_tasks(tasks: Iterable[Fields]) -> list[pb.NewTask]:
    """Return the messages of 1 to 1000 new tasks; raises `Invalid`."""
    return list(map(new_task_message, parse_batch({"tasks": [_plain(fields) for fields in tasks]})))


def update_request(task_id: TaskId, fields: Fields, if_versions: Iterable[int] | None) -> pb.UpdateTaskRequest:
    """Return the request that changes fields of a task; raises `Invalid`."""
    found = parse_patch(_plain(fields)).fields
    patch = pb.TaskPatch()
    for name, value in found.items():
        # Named in the mask and not set, a field gets its default: what None stands for.
        if value is None:
            continue
        if name == "payload":
            patch.payload = dump_json(value)
        elif name == "run_at":
            patch.run_at.CopyFrom(timestamp(value))
        else:
            setattr(patch, name, value)
    request = pb.UpdateTaskRequest(id=id_text(task_id), patch=patch, if_versions=versions(if_versions))
    request.update_mask.paths.extend(found)
    return request


def versions(asked: Iterable[int] | None) -> list[int]:
    """Return the versions of which a task must have one; none at all can be had only by one that no task has."""
    return [] if asked is None else list(asked) or [0]


def list_request(query: Fields) -> pb.ListTasksRequest:
    """Return the request for a page of a list; raises `Invalid`."""
    found: ListQuery = parse_list_query(_ANYBODY, _pairs(query))
    return pb.ListTasksRequest(
        statuses=[STATUS[status] for status in found.statuses],
        kind=found.kind or "",
        owner=found.owner or "",
        created_after=None if found.created_after is None else timestamp(found.created_after),
        created_before=None if found.created_before is None else timestamp(found.created_before),
        limit=found.limit,
        cursor=found.cursor or "",
        order=pb.LIST_ORDER_NEWEST_FIRST if found.newest_first else pb.LIST_ORDER_OLDEST_FIRST,
    )


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
    found = parse_search_query(_ANYBODY, _pairs({"query": text, **query}))
    return pb.SearchTasksRequest(
        query=found.text,
        prefix=found.prefix,
        statuses=[STATUS[status] for status in found.statuses],
        kind=found.kind or "",
        limit=found.limit,
        cursor=found.cursor or "",
    )
