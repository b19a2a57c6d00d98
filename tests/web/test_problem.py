"""Errors as problem details, by one table."""

from __future__ import annotations

import inspect
import json

import pytest

from taskd import errors
from taskd.errors import Fault, Invalid, RateLimited, TaskdError, Unauthenticated, Unavailable
from taskd.web.problem import PROBLEM, STATUS, of_error, of_status
from tests.web.site import field

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, TaskdError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_a_status(cls: type[TaskdError]) -> None:
    assert cls in STATUS
    assert (400 <= STATUS[cls] < 500) == issubclass(cls, errors.Rejected)


def test_the_table_knows_nothing_else() -> None:
    assert set(STATUS) == set(CLASSES)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if "__init__" not in vars(cls) and STATUS[cls] < 500])
def test_a_problem_has_all_its_members(cls: type[TaskdError]) -> None:
    answer = of_error(cls("what happened"), "r1")
    assert (answer.status, answer.media_type) == (STATUS[cls], PROBLEM)
    assert json.loads(answer.body) == {
        "type": f"/problems/{cls.code}",
        "title": cls.title,
        "status": STATUS[cls],
        "detail": "what happened",
        "request_id": "r1",
    }


def test_each_fault_is_told() -> None:
    problem = json.loads(of_error(Invalid([Fault("a", "is bad"), Fault("b", "too")]), "r").body)
    assert problem["errors"] == [{"field": "a", "message": "is bad"}, {"field": "b", "message": "too"}]


def test_a_problem_is_json_whatever_it_is_about() -> None:
    assert json.loads(of_error(Invalid([Fault("b\udcff", "bad")]), "r").body.decode("utf-8"))["status"] == 422


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "1"), (1.0, "1"), (1.1, "2"), (30, "30")])
def test_who_should_come_back_is_told_when(seconds: float, text: str) -> None:
    assert field(of_error(Unavailable("away", retry_after=seconds), "r"), "Retry-After") == text
    assert field(of_error(RateLimited("slow down", retry_after=seconds), "r"), "Retry-After") == text


def test_who_is_unknown_is_told_how_to_say_who_they_are() -> None:
    assert field(of_error(Unauthenticated("who"), "r"), "WWW-Authenticate") == "Bearer"


@pytest.mark.parametrize("cls", [errors.ConfigError, errors.StartError, TaskdError])
def test_an_error_of_the_server_shows_nothing_of_the_inside(cls: type[TaskdError]) -> None:
    answer = of_error(cls("secret"), "r")
    assert answer.status == 500
    assert b"secret" not in answer.body


def test_a_finer_class_is_answered_as_what_it_refines() -> None:
    class Gone(Unavailable):
        pass

    assert of_error(Gone("away"), "r").status == 503


def test_what_the_protocol_refuses_is_named_after_its_status() -> None:
    assert json.loads(of_status(431, "too many", "r").body)["type"] == "/problems/request-header-fields-too-large"
    assert json.loads(of_status(400, "bad", "r").body)["type"] == "/problems/malformed"
