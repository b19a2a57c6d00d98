"""What callers may send: each field's limits on both sides of the edge, every fault at once, and the schema agrees."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.fields import Bad, Choice, Id, Integer, JsonObject, ListOf, Number, Text, Time, json_schema
from taskd.domain.forms import (
    LIST,
    MAX_PAYLOAD,
    NEW_TASK,
    PATCH,
    batch_schema,
    merge_payload,
    parse_batch,
    parse_list_query,
    parse_new_task,
    parse_patch,
)
from taskd.domain.model import NewTask, Role, Status, User
from taskd.errors import Forbidden, Invalid

ANN = User("ann")
ROOT = User("root", Role.ADMIN)

# RFC 7396, appendix A, where both sides are objects.
MERGES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def faults_of(call: Any, *args: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        call(*args)
    return [(fault.field, fault.message) for fault in refused.value.faults]


def fields_of(call: Any, *args: Any) -> list[str]:
    return [field for field, _ in faults_of(call, *args)]


def test_a_title_is_enough() -> None:
    assert parse_new_task({"title": "t"}) == NewTask(title="t")


def test_all_fields_are_taken() -> None:
    draft = parse_new_task(
        {
            "title": "t", "kind": "a-b_c.9", "description": "d", "payload": {"a": [1]}, "priority": -100,
            "run_at": "2026-01-01T00:00:00+02:00", "max_attempts": 100, "timeout_seconds": 0.5,
        }
    )  # fmt: skip
    at = datetime(2025, 12, 31, 22, tzinfo=UTC)
    assert draft == NewTask("t", "a-b_c.9", "d", '{"a":[1]}', -100, at, 100, 0.5)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("title", ["x", "x" * 200, "\U0001f600" * 200], ["", "x" * 201, None, "a\0", "\ud800"]),
        ("description", ["", "x" * 20_000], ["x" * 20_001, None]),
        ("kind", ["a", "k" * 64], ["", "k" * 65, "K", "k\n", "é"]),
        ("priority", [-100, 100, 5.0], [-101, 101, 1.5, True, "1", None, 10**30, math.nan]),
        ("max_attempts", [1, 100], [0, 101]),
        ("timeout_seconds", [0.001, 31_536_000], [0, -1, 31_536_001, math.inf, math.nan, False]),
        ("run_at", [None, "2026-01-01T00:00:00Z", "2026-01-01t00:00:00.123456z"], ["2026-01-01", "x", 5, ""]),
        ("payload", [{}, {"a": None}], [[], None, "x", {"a": math.nan}, {"a": "\ud800"}, {"\0": 1}]),
    ],
)
def test_the_limits_of_a_field(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        parse_new_task({"title": "t", field: value})
    for value in bad:
        assert fields_of(parse_new_task, {"title": "t"} | {field: value}) == [field], value


def test_a_payload_may_have_just_its_limit() -> None:
    room = MAX_PAYLOAD - len('{"a":""}')
    assert len(parse_new_task({"title": "t", "payload": {"a": "x" * room}}).payload_json) == MAX_PAYLOAD
    assert fields_of(parse_new_task, {"title": "t", "payload": {"a": "x" * (room + 1)}}) == ["payload"]
    # Bytes count, not characters.
    assert fields_of(parse_new_task, {"title": "t", "payload": {"a": "я" * room}}) == ["payload"]


def test_every_fault_is_told_at_once_in_the_order_of_the_body() -> None:
    body = {"kind": "K", "colour": 1, "priority": "x", "run_at": "x"}
    assert fields_of(parse_new_task, body) == ["kind", "colour", "priority", "run_at", "title"]


def test_a_fault_deep_in_the_payload_names_the_place() -> None:
    [(field, message)] = faults_of(parse_new_task, {"title": "t", "payload": {"a": [{"b": math.inf}]}})
    assert field == "payload"
    assert "a" in message
    assert "b" in message


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"a": [{"b": 10**30}]}, ", at a[0].b"),
        ({"a": {"b": [[1, math.inf]]}}, ", at a.b[0][1]"),
        ({"": {"a": "\ud800"}}, ", at a"),
        ({"a\n": 10**30}, ", at a\\n"),
        ({"": 10**30}, " bits"),
    ],
)
def test_the_place_of_a_fault_is_its_way_through_keys_and_numbers(payload: dict[str, Any], place: str) -> None:
    [(_, message)] = faults_of(parse_new_task, {"title": "t", "payload": payload})
    assert message.endswith(place)


@pytest.mark.parametrize("body", [None, [], 1, "x", True])
def test_a_body_that_is_no_object(body: Any) -> None:
    assert fields_of(parse_new_task, body) == ["body"]
    assert fields_of(parse_batch, body) == ["body"]
    assert fields_of(parse_patch, body) == ["body"]


def test_a_batch_names_the_task_and_the_field() -> None:
    body = {"tasks": [{"title": "a"}, {"title": ""}, 7, {"kind": "K"}]}
    assert fields_of(parse_batch, body) == ["tasks[1].title", "tasks[2]", "tasks[3].kind", "tasks[3].title"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["tasks"]),
        ({"tasks": []}, ["tasks"]),
        ({"tasks": {}}, ["tasks"]),
        ({"tasks": [{"title": "t"}] * 1001}, ["tasks"]),
        ({"tasks": [{"title": "t"}], "more": 1}, ["more"]),
    ],
)
def test_a_batch_has_one_to_a_thousand_tasks(body: Any, fields: list[str]) -> None:
    assert fields_of(parse_batch, body) == fields


def test_a_full_batch_is_taken() -> None:
    assert len(parse_batch({"tasks": [{"title": "t"}] * 1000})) == 1000


def test_null_takes_a_field_back_to_its_default() -> None:
    patch = parse_patch({name: None for name in PATCH.entries if name != "title"})
    assert patch.fields == {
        "description": "", "payload": None, "priority": 0, "run_at": None, "max_attempts": 5, "timeout_seconds": 300.0,
    }  # fmt: skip


def test_a_title_has_no_default_and_a_kind_no_change() -> None:
    assert fields_of(parse_patch, {"title": None, "kind": "x", "status": "done"}) == ["title", "kind", "status"]


def test_a_patch_knows_what_it_touches() -> None:
    assert parse_patch({"title": "x"}).content
    assert not parse_patch({"priority": 1}).content
    assert parse_patch({"title": "x", "payload": {}, "priority": 1}).scheduling == {"payload", "priority"}


@pytest.mark.parametrize(("target", "patch", "merged"), MERGES)
def test_a_payload_is_merged_as_rfc_7396_has_it(target: Any, patch: Any, merged: Any) -> None:
    assert parse_patch({"payload": patch}).fields["payload"] == patch
    assert json.loads(merge_payload(json.dumps(target), patch)) == merged


def test_a_payload_may_not_outgrow_its_limit_by_merging() -> None:
    half = "x" * (MAX_PAYLOAD // 2)
    with pytest.raises(Invalid, match=r"payload: .* after the merge"):
        merge_payload(json.dumps({"a": half}), {"b": half})
    assert merge_payload('{"a":1}', None) == "{}"


def test_a_list_without_parameters() -> None:
    query = parse_list_query(ANN, [])
    assert (query.owner, query.limit, query.newest_first, query.cursor) == ("ann", 50, True, None)
    assert parse_list_query(ROOT, []).owner is None


def test_a_list_with_all_parameters() -> None:
    pairs = [("status", "new"), ("status", "done"), ("kind", "k"), ("limit", "200"), ("order", "created_at"),
             ("created_after", "2026-01-01T00:00:00Z"), ("created_before", "2026-02-01T00:00:00Z"),
             ("owner", "ann")]  # fmt: skip
    query = parse_list_query(ANN, pairs)
    assert query.statuses == (Status.DONE, Status.NEW)
    assert (query.kind, query.limit, query.newest_first) == ("k", 200, False)
    assert parse_list_query(ROOT, pairs).owner == "ann"


def test_another_owners_list_is_for_admins() -> None:
    with pytest.raises(Forbidden):
        parse_list_query(ANN, [("owner", "bob")])


@pytest.mark.parametrize(
    ("pairs", "fields"),
    [
        ([("limit", "0"), ("order", "x"), ("colour", "red")], ["limit", "order", "colour"]),
        ([("kind", "a"), ("kind", "b")], ["kind"]),
        ([("limit", "+5")], ["limit"]),
        ([("limit", "٥")], ["limit"]),
        ([("status", "new"), ("status", "old")], ["status"]),
        ([("status", "new")] * 7, ["status"]),
        ([("created_after", "2026-02-01T00:00:00Z"), ("created_before", "2026-01-01T00:00:00Z")], ["created_before"]),
        ([("\udcff" * 200, "1")], ["\\udcff" * 100]),
        ([("cursor", "")], ["cursor"]),
    ],
)
def test_a_bad_query_names_its_parameters(pairs: list[tuple[str, str]], fields: list[str]) -> None:
    assert fields_of(parse_list_query, ANN, pairs) == fields


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-200, 200) | st.floats(-1000, 1000) | st.text(max_size=70)
    | st.sampled_from(["2026-01-01T00:00:00Z", "new", "a.b", 0.5, 1e9, "0198c0c0-0000-7000-8000-000000000000"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
VALIDATOR = jsonschema.Draft202012Validator
COMPONENTS = {"components": {"schemas": {"Json": json_schema()}}}
"""What the schemas refer to."""


@pytest.mark.parametrize(
    "field",
    [Text(1, 64, "[a-z0-9_.-]{1,64}"), Text(0, 20), Integer(-100, 100), Number(0, 100), Choice(("new", "done")), Time(),
     Id(), JsonObject(1000), ListOf(Choice(("new", "done")), 1, 2)],
    ids=lambda field: type(field).__name__,
)  # fmt: skip
@given(value=ANY)
def test_what_is_taken_is_what_the_schema_allows(field: Any, value: Any) -> None:
    taken = not isinstance(field.check(value), Bad)
    allowed = VALIDATOR(field.schema() | COMPONENTS).is_valid(value)
    # A schema can't tell of NUL in a text, of a length in bytes, of a calendar; it never allows less than is taken.
    assert allowed or not taken
    if not isinstance(value, str | dict | list):
        assert taken == allowed


@given(body=st.dictionaries(st.sampled_from([*NEW_TASK.entries, "other"]), ANY))
def test_a_form_takes_no_more_than_its_schema(body: dict[str, Any]) -> None:
    try:
        parse_new_task(body)
    except Invalid:
        return
    VALIDATOR(NEW_TASK.schema() | COMPONENTS).validate(body)


def test_schemas_are_schemas() -> None:
    for form in (NEW_TASK, PATCH, LIST):
        VALIDATOR.check_schema(form.schema())
    VALIDATOR.check_schema(batch_schema())


@pytest.mark.parametrize("text", ["1.5", "1e1", "abc", "", "1" * 400, "nan", "inf"])
def test_a_number_in_a_query_is_read_strictly(text: str) -> None:
    assert isinstance(Integer(0, 100).read(text), Bad)
    if text not in ("1.5", "1e1"):
        assert isinstance(Number(0, 100).read(text), Bad)
    assert isinstance(JsonObject(10).read(text), Bad)
