"""Errors as gRPC statuses, by one table, and statuses as errors again.

A status carries details as `google.rpc` has them: `ErrorInfo` always (AIP-193), `BadRequest` with every fault of an
invalid request, `RetryInfo` where a later try may go well. They are what the error is made of again at the other side;
a status without them comes from gRPC itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from taskd import errors
from taskd.errors import Fault, Invalid, RateLimited, TaskdError, Unavailable
from taskd.rpc.messages import duration, seconds_of
from taskd.v1 import status_pb2 as pb

Code = grpc.StatusCode

DOMAIN = "taskd"
TRAILER = "grpc-status-details-bin"
MESSAGE, FAULTS = 600, 2000
"""Bytes of a message, and of all faults: a client takes 8 KiB of trailing metadata, in which the details are in base64,
with the message, and the message once more, percent-encoded (gRPC over HTTP/2, "Responses")."""

INSIDE = "the server failed; its log has more under this request's id"

CODE: Mapping[type[TaskdError], Code] = {
    errors.TaskdError: Code.INTERNAL,
    errors.Rejected: Code.INVALID_ARGUMENT,
    errors.Malformed: Code.INVALID_ARGUMENT,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.Forbidden: Code.PERMISSION_DENIED,
    errors.NotFound: Code.NOT_FOUND,
    errors.NotAcceptable: Code.INVALID_ARGUMENT,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.StaleVersion: Code.ABORTED,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.UnsupportedMedia: Code.INVALID_ARGUMENT,
    errors.Invalid: Code.INVALID_ARGUMENT,
    errors.KeyReused: Code.INVALID_ARGUMENT,
    errors.RateLimited: Code.RESOURCE_EXHAUSTED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.ConfigError: Code.INTERNAL,
    errors.StartError: Code.INTERNAL,
}
"""The code of each error; a test fails when a class is missing."""

AWAY = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""What gRPC itself answers when nobody did: a later call may go well."""

_PLAIN: Mapping[Code, type[TaskdError]] = {
    Code.UNAUTHENTICATED: errors.Unauthenticated,
    Code.PERMISSION_DENIED: errors.Forbidden,
    Code.NOT_FOUND: errors.NotFound,
    Code.RESOURCE_EXHAUSTED: errors.TooLarge,
}
"""What a status without details stands for, as far as it is not the server's own fault."""


_FINER: Mapping[Code, type[TaskdError]] = {
    Code.RESOURCE_EXHAUSTED: RateLimited,
    Code.ABORTED: errors.StaleVersion,
}


def reason_of(error: type[TaskdError]) -> str:
    """Return an error's stable name as `ErrorInfo` has it."""
    return error.code.upper().replace("-", "_")


_BY_REASON = {reason_of(error): error for error in CODE}


def code_of(error: TaskdError) -> Code:
    """Return the code of an error; a part may raise a finer class of its own."""
    return next(CODE[cls] for cls in type(error).__mro__ if cls in CODE)


def status_of(error: TaskdError) -> pb.Status:
    """Return an error as a status. One of the server's own shows nothing of the inside."""
    code = code_of(error)
    inside = code is Code.INTERNAL
    details: list[Message] = [pb.ErrorInfo(reason=reason_of(TaskdError if inside else type(error)), domain=DOMAIN)]
    if isinstance(error, Invalid):
        details.append(_bad_request(error.faults))
    if isinstance(error, Unavailable | RateLimited):
        details.append(pb.RetryInfo(retry_delay=duration(error.retry_after)))
    message = INSIDE if inside else _cut(str(error))
    return pb.Status(code=number_of(code), message=message, details=map(_packed, details))


def _bad_request(faults: Sequence[Fault]) -> pb.BadRequest:
    """Return the faults, as many as there is room for; the last one says how many there are more."""
    bad = pb.BadRequest()
    size = 0
    for number, fault in enumerate(faults):
        violation = pb.BadRequest.FieldViolation(field=_cut(fault.field), description=_cut(fault.message))
        size += violation.ByteSize()
        if size > FAULTS and number:
            left = len(faults) - number
            bad.field_violations.add(field=_cut(fault.field), description=f"is wrong too, and {left - 1} more")
            break
        bad.field_violations.append(violation)
    return bad


def _cut(text: str) -> str:
    # What no client can be sent is shown as it would be escaped.
    whole = text.encode("utf-8", "backslashreplace")
    return whole.decode() if len(whole) <= MESSAGE else f"{whole[: MESSAGE - 3].decode(errors='ignore')}…"


def error_of(code: Code, message: str, trailers: Iterable[tuple[str, str | bytes]] = ()) -> TaskdError:
    """Return the error that a call ended with.

    Args:
        code, message: of the status.
        trailers: the trailing metadata.
    """
    status = _status_in(trailers)
    info, bad, retry = pb.ErrorInfo(), pb.BadRequest(), pb.RetryInfo(retry_delay=duration(1.0))
    for detail in () if status is None else status.details:
        for found in (info, bad, retry):
            _unpack(detail, found)
    kind: type[TaskdError] = Unavailable if code in AWAY else _PLAIN.get(code, TaskdError)
    if info.domain == DOMAIN:
        # A reason that is not known here is of a finer class than those that are.
        kind = _BY_REASON.get(info.reason) or _FINER.get(code, kind)
    if issubclass(kind, Invalid) and bad.field_violations:
        return Invalid([Fault(fault.field, fault.description) for fault in bad.field_violations])
    if issubclass(kind, Invalid):
        return errors.Rejected(message)
    if issubclass(kind, Unavailable | RateLimited):
        return kind(message, retry_after=seconds_of(retry.retry_delay))
    return kind(message)


def number_of(code: Code) -> int:
    """Return a code's number."""
    number: int = code.value[0]
    return number


def _name(message: Message) -> str:
    return f"type.googleapis.com/google.rpc.{message.DESCRIPTOR.name}"


def _packed(detail: Message) -> AnyMessage:
    return AnyMessage(type_url=_name(detail), value=detail.SerializeToString())


def _unpack(detail: AnyMessage, found: Message) -> None:
    if detail.type_url == _name(found):
        try:
            found.ParseFromString(detail.value)
        except DecodeError:
            found.Clear()


def _status_in(trailers: Iterable[tuple[str, str | bytes]]) -> pb.Status | None:
    for name, value in trailers:
        if name == TRAILER and isinstance(value, bytes):
            try:
                return pb.Status.FromString(value)
            except DecodeError:
                return None
    return None
