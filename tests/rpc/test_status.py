"""Errors as statuses, and back."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest

from taskd import errors
from taskd.errors import Fault, Invalid, TaskdError, Unavailable
from taskd.rpc.channel import READS
from taskd.rpc.status import CODE, INSIDE, TRAILER, Code, code_of, error_of, number_of, status_of
from taskd.v1 import taskd_pb2 as pb

KNOWN = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, TaskdError)}
OWN_FAULT = {errors.TaskdError, errors.ConfigError, errors.StartError}


def example_of(cls: type[TaskdError]) -> TaskdError:
    if cls is Invalid:
        return Invalid([Fault("task.title", "must be given"), Fault("tasks[3].kind", "is no kind")])
    more: dict[str, Any] = {"retry_after": 2.5} if issubclass(cls, errors.RateLimited | Unavailable) else {}
    return cls("почему", **more)


def sent(error: TaskdError) -> TaskdError:
    """Return an error as it arrives at the other side."""
    status = status_of(error)
    return error_of(code_of(error), status.message, [(TRAILER, status.SerializeToString())])


def test_each_error_has_a_code() -> None:
    assert set(CODE) == KNOWN
    assert Code.UNKNOWN not in CODE.values()


@pytest.mark.parametrize("cls", sorted(KNOWN - OWN_FAULT, key=lambda cls: cls.__name__))
def test_the_callers_fault_arrives_as_what_it_was(cls: type[TaskdError]) -> None:
    error = example_of(cls)
    arrived = sent(error)
    assert type(arrived) is cls
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("cls", sorted(OWN_FAULT, key=lambda cls: cls.__name__))
def test_of_the_servers_own_fault_nothing_is_told(cls: type[TaskdError]) -> None:
    status = status_of(cls("postgresql://user:secret@host"))
    assert status.message == INSIDE
    assert b"secret" not in status.SerializeToString()
    assert type(sent(cls("secret"))) is TaskdError


class Finer(errors.StaleVersion):
    """A part's own."""

    code = "finer-than-known"


def test_a_finer_class_has_the_code_of_its_base_and_a_reason_of_its_own() -> None:
    assert code_of(Finer("why")) is Code.ABORTED
    assert type(sent(Finer("why"))) is errors.StaleVersion


@pytest.mark.parametrize("text", ["x" * 5000, "ё" * 5000, "\U0001f600" * 5000, "\ud800" * 5000, "%" * 5000])
@pytest.mark.parametrize("faults", [0, 1, 5000])
def test_whatever_is_wrong_fits_into_what_a_client_takes(text: str, faults: int) -> None:
    error = Invalid([Fault(text, text)] * faults) if faults else errors.NotFound(text)
    status = status_of(error)
    # As it goes over the wire (gRPC over HTTP/2, "Responses"), with 32 bytes an entry (RFC 7541 4.1).
    size = len(base64.b64encode(status.SerializeToString())) + len(quote(status.message)) + 8 * 32
    assert size < 8192


def test_of_too_many_faults_the_first_are_told_and_how_many_more_there_are() -> None:
    arrived = sent(Invalid([Fault(f"tasks[{number}].title", "must be given") for number in range(1000)]))
    assert isinstance(arrived, Invalid)
    told = len(arrived.faults) - 1
    assert arrived.faults[:told] == tuple(Fault(f"tasks[{number}].title", "must be given") for number in range(told))
    assert arrived.faults[told].message == f"is wrong too, and {999 - told} more"
    assert told > 30


@pytest.mark.parametrize("code", list(Code))
def test_a_status_without_details_is_understood_too(code: Code) -> None:
    error = error_of(code, "why")
    assert isinstance(error, Unavailable) is (code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED))
    assert error_of(code, "why", [(TRAILER, b"\xff")]).args == error.args


def test_a_code_has_its_number() -> None:
    assert [number_of(code) for code in (Code.OK, Code.NOT_FOUND, Code.UNAUTHENTICATED)] == [0, 5, 16]


def test_what_is_tried_again_by_itself_changes_nothing() -> None:
    methods = pb.DESCRIPTOR.services_by_name["TaskService"].methods_by_name
    assert set(READS) <= set(methods)
    assert all(name.startswith(("Get", "List", "Search")) for name in READS)
