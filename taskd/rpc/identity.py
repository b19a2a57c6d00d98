"""Who calls, by the call's metadata, and which calls are for whom."""

from __future__ import annotations

import re
from collections.abc import Mapping

from taskd.domain.access import Access
from taskd.domain.forms import parse_owner
from taskd.domain.token import token_in
from taskd.service.auth import ANONYMOUS, Caller, Gate

Metadata = Mapping[str, str | bytes]

USER = "x-taskd-user"
USER_BYTES = "x-taskd-user-bin"
"""The same in UTF-8: other metadata is ASCII (gRPC over HTTP/2, "Custom-Metadata")."""

RULES: Mapping[str, Access] = {
    "taskd.v1.TaskService/CreateTask": Access.TASKS,
    "taskd.v1.TaskService/BatchCreateTasks": Access.TASKS,
    "taskd.v1.TaskService/GetTask": Access.TASKS,
    "taskd.v1.TaskService/ListTasks": Access.TASKS,
    "taskd.v1.TaskService/UpdateTask": Access.TASKS,
    "taskd.v1.TaskService/DeleteTask": Access.TASKS,
    "taskd.v1.TaskService/CancelTask": Access.TASKS,
    "taskd.v1.TaskService/RetryTask": Access.TASKS,
    "taskd.v1.TaskService/SearchTasks": Access.TASKS,
    "taskd.v1.TaskService/ListTaskEvents": Access.TASKS,
    "taskd.v1.TaskService/ListEvents": Access.TASKS,
    "taskd.v1.TaskService/WatchTasks": Access.TASKS,
    "taskd.v1.WorkerService/Work": Access.WORK,
    "taskd.v1.TokenService/FindTokens": Access.ADMIN,
    # A probe has no token, and is told no more than whether the server is ready.
    "grpc.health.v1.Health/Check": Access.OPEN,
    "grpc.health.v1.Health/List": Access.OPEN,
    "grpc.health.v1.Health/Watch": Access.OPEN,
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Access.KNOWN,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.KNOWN,
}
"""Whom each call is for; one that is not in here can't be served."""

# gRPC core, "address_utils": `ipv4:127.0.0.1:50051`, and an address of version 6 percent-encoded in brackets.
_PEER = re.compile(r"ipv4:([0-9.]+):[0-9]+|ipv6:(?:%5B|\[)([^%\]]+)(?:%[^\]]*?)?(?:%5D|\]):[0-9]+")


def caller_of(metadata: Metadata, peer: str, gate: Gate) -> Caller:
    """Return what a call says of who makes it.

    Args:
        metadata: of the call.
        peer: as gRPC tells it.
        gate: says whether callers are taken at their word, and proxies too.

    Raises:
        Invalid: the name is none that an owner can have.
    """
    if gate.by_word:
        return Caller(word=_word(metadata))
    given = bytes_of(metadata, "authorization")
    address = _PEER.fullmatch(peer)
    found = address[1] or address[2] if address else peer
    found = gate.address(found, bytes_of(metadata, "forwarded"), bytes_of(metadata, "x-forwarded-for"))
    return Caller(None if given is None else token_in(given), address=found)


def bytes_of(metadata: Metadata, name: str) -> bytes | None:
    """Return what a call says under a name, as HTTP would have it."""
    given = metadata.get(name)
    return given.encode("latin-1", "replace") if isinstance(given, str) else given


def _word(metadata: Metadata) -> str:
    given = metadata.get(USER_BYTES, metadata.get(USER))
    if given is None:
        return ANONYMOUS
    text = given.decode("utf-8", "surrogateescape") if isinstance(given, bytes) else given
    return parse_owner(text, USER)
