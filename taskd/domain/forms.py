"""What callers may send, declared: the fields of a new task, of a patch, and of a list's query.

A form reports every fault of a request at once. REST, gRPC and embedding all come through here, and OpenAPI is
printed from the same declarations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from taskd.domain.codec import Repeated
from taskd.domain.fields import Bad, Choice, Field, Integer, JsonObject, ListOf, Number, Schema, Text, Time, shown
from taskd.domain.model import ListQuery, NewTask, Role, Status, User
from taskd.errors import Fault, Forbidden, Invalid

MAX_PAYLOAD = 256 * 1024
MAX_BATCH = 1000
MAX_OWNER = 200
YEAR = 31_536_000
UNSET: Final = object()


class Entry(NamedTuple):
    """A field of a form: how it is checked, what it means, and what it is when left out (UNSET: must be given)."""

    field: Field
    meaning: str
    default: Any = UNSET
    nullable: bool = False

    def schema(self) -> Schema:
        schema = self.field.schema()
        if self.nullable:
            schema["type"] = [schema["type"], "null"]
        if self.default is not UNSET and self.default is not None:
            schema["default"] = self.default
        schema["description"] = self.meaning
        return schema


class Form:
    """Named entries, checked together."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)

    def check(self, value: Any, faults: list[Fault], prefix: str = "") -> dict[str, Any]:
        """Return the good fields that were given, and append a fault for each bad one.

        `prefix` is put before each field's name, `tasks[3].` say.
        """
        good: dict[str, Any] = {}
        if not isinstance(value, dict):
            faults.append(Fault(prefix.rstrip(".") or "body", "must be a JSON object"))
            return good
        if isinstance(value, Repeated):
            faults.append(Fault(prefix + shown(value.key), "is given twice"))
        for name, given in value.items():
            entry = self.entries.get(name)
            if entry is None:
                faults.append(Fault(prefix + shown(name), "is no field of this request"))
            elif given is None and entry.nullable:
                good[name] = None
            elif isinstance(checked := entry.field.check(given), Bad):
                faults.append(Fault(prefix + name, checked.message))
            else:
                good[name] = checked
        for name, entry in self.entries.items():
            if entry.default is UNSET and name not in value:
                faults.append(Fault(prefix + name, "must be given"))
        return good

    def read(self, pairs: Iterable[tuple[str, str]], faults: list[Fault]) -> dict[str, Any]:
        """Return the good parameters of a query string, and append a fault for each bad one."""
        given: dict[str, list[str]] = {}
        for name, text in pairs:
            given.setdefault(name, []).append(text)
        good: dict[str, Any] = {}
        for name, texts in given.items():
            entry = self.entries.get(name)
            if entry is None:
                faults.append(Fault(shown(name), "is no parameter of this call"))
                continue
            if isinstance(entry.field, ListOf):
                checked: Any = entry.field.read_all(texts)
            else:
                checked = entry.field.read(texts[0]) if len(texts) == 1 else Bad("is given twice")
            if isinstance(checked, Bad):
                faults.append(Fault(name, checked.message))
            else:
                good[name] = checked
        for name, entry in self.entries.items():
            if entry.default is UNSET and name not in given:
                faults.append(Fault(name, "must be given"))
        return good

    def schema(self) -> Schema:
        """Return the JSON Schema of the object."""
        return {
            "type": "object",
            "properties": {name: entry.schema() for name, entry in self.entries.items()},
            "required": [name for name, entry in self.entries.items() if entry.default is UNSET],
            "additionalProperties": False,
        }


KIND = Text(1, 64, "[a-z0-9_.-]{1,64}")
OWNER = Text(1, MAX_OWNER)
_DEFAULTS = NewTask(title="-")

NEW_TASK = Form(
    {
        "kind": Entry(KIND, "names the handler that processes it", _DEFAULTS.kind),
        "title": Entry(Text(1, 200), "searchable, weight A"),
        "description": Entry(Text(0, 20_000), "searchable, weight B", ""),
        "payload": Entry(JsonObject(MAX_PAYLOAD), f"input of the handler, at most {MAX_PAYLOAD} bytes", {}),
        "priority": Entry(Integer(-100, 100), "higher first", 0),
        "run_at": Entry(Time(), "not before; null: at once", None, nullable=True),
        "max_attempts": Entry(Integer(1, 100), "attempts allowed", _DEFAULTS.max_attempts),
        "timeout_seconds": Entry(Number(0, YEAR), "limit of one attempt", _DEFAULTS.timeout_seconds),
    }
)

PATCH = Form(
    {
        name: entry._replace(default=None, nullable=name != "title")
        for name, entry in NEW_TASK.entries.items()
        if name != "kind"
    }
)
"""A JSON merge patch: null takes a field back to its default. Only `title` has none."""

LIST = Form(
    {
        "status": Entry(ListOf(Choice(tuple(Status)), 1, 6), "only tasks in one of these", ()),
        "kind": Entry(KIND, "only tasks of this kind", None),
        "owner": Entry(OWNER, "only tasks of this owner (admin)", None),
        "created_after": Entry(Time(), "only tasks created after it", None),
        "created_before": Entry(Time(), "only tasks created before it", None),
        "limit": Entry(Integer(1, 200), "tasks of a page", 50),
        "cursor": Entry(Text(1, 200), "`next_cursor` of the page before", None),
        "order": Entry(Choice(("created_at", "-created_at")), "oldest or newest first", "-created_at"),
    }
)

SOCKET = Form(
    {
        "client": Entry(
            Text(1, 64, "[A-Za-z0-9_-]{1,64}"), "which of the user's clients; replaces one of the same name", "default"
        ),
        "after": Entry(Text(1, 100), "cursor behind which the events begin; left out: from now on", None),
    }
)


class TaskPatch(NamedTuple):
    """Fields to change, with their new values. `payload` is itself a merge patch (RFC 7396), None: to `{}`."""

    fields: Mapping[str, Any]

    @property
    def content(self) -> bool:
        """Whether it changes what may be changed in every status."""
        return not self.fields.keys().isdisjoint({"title", "description"})

    @property
    def scheduling(self) -> frozenset[str]:
        """Fields that may be changed only while the task waits."""
        return frozenset(self.fields) - {"title", "description"}


def _new_task(good: dict[str, Any]) -> NewTask:
    if "payload" in good:
        good["payload_json"] = good.pop("payload")
    return NewTask(**good)


def parse_owner(text: str, name: str) -> str:
    """Return an owner's name that was given as `name`.

    Raises:
        Invalid: it is none that an owner can have.
    """
    if isinstance(checked := OWNER.check(text), Bad):
        raise Invalid([Fault(name, checked.message)])
    return text


def parse_new_task(body: Any) -> NewTask:
    """Return the task that a request's body asks for.

    Raises:
        Invalid: with every fault.
    """
    faults: list[Fault] = []
    good = NEW_TASK.check(body, faults)
    if faults:
        raise Invalid(faults)
    return _new_task(good)


def parse_batch(body: Any) -> list[NewTask]:
    """Return the tasks of `{"tasks": [...]}`, 1 to 1000.

    Raises:
        Invalid: with every fault of every task.
    """
    faults: list[Fault] = []
    if not isinstance(body, dict):
        raise Invalid([Fault("body", "must be a JSON object")])
    if isinstance(body, Repeated):
        faults.append(Fault(shown(body.key), "is given twice"))
    faults += [Fault(shown(name), "is no field of this request") for name in body if name != "tasks"]
    items = body.get("tasks", UNSET)
    if items is UNSET:
        faults.append(Fault("tasks", "must be given"))
    elif not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH:
        faults.append(Fault("tasks", f"must be a list of 1 to {MAX_BATCH} tasks"))
    else:
        drafts = [NEW_TASK.check(item, faults, f"tasks[{n}].") for n, item in enumerate(items)]
    if faults:
        raise Invalid(faults)
    return [_new_task(draft) for draft in drafts]


def batch_schema() -> Schema:
    """Return the JSON Schema that `parse_batch` checks."""
    items = {"type": "array", "items": {"$ref": "#/components/schemas/NewTask"}, "minItems": 1, "maxItems": MAX_BATCH}
    return {"type": "object", "properties": {"tasks": items}, "required": ["tasks"], "additionalProperties": False}


class _MergePatch:
    """A payload's merge patch: an object; its size is checked once it is merged."""

    def check(self, value: Any) -> Any:
        checked = JsonObject(MAX_PAYLOAD).check(value)
        return checked if isinstance(checked, Bad) else value

    def read(self, text: str) -> Bad:
        return JsonObject(MAX_PAYLOAD).read(text)

    def schema(self) -> Schema:
        return JsonObject(MAX_PAYLOAD).schema()


PATCH.entries["payload"] = PATCH.entries["payload"]._replace(field=_MergePatch())


def parse_patch(body: Any) -> TaskPatch:
    """Return what a merge patch asks for, nulls turned into defaults (`run_at`: None, which means now).

    Raises:
        Invalid: with every fault.
    """
    faults: list[Fault] = []
    good = PATCH.check(body, faults)
    if faults:
        raise Invalid(faults)
    for name, value in good.items():
        if value is None and name not in ("payload", "run_at"):
            good[name] = NEW_TASK.entries[name].default
    return TaskPatch(good)


def merge_payload(payload_json: str, patch: dict[str, Any] | None) -> str:
    """Return a payload's JSON text after a merge patch (RFC 7396); None gives `{}`.

    Raises:
        Invalid: the merged payload is too large; names `payload`.
    """
    if patch is None:
        return "{}"
    checked = JsonObject(MAX_PAYLOAD).check(_merge(json.loads(payload_json), patch))
    if isinstance(checked, Bad):
        raise Invalid([Fault("payload", f"{checked.message}, after the merge")])
    return checked


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, as its pseudocode has it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def parse_list_query(user: User, pairs: Iterable[tuple[str, str]]) -> ListQuery:
    """Return what `GET /tasks` is to list for a user.

    Raises:
        Invalid: with every fault.
        Forbidden: another owner's tasks, and the user is no admin.
    """
    faults: list[Fault] = []
    good = LIST.read(pairs, faults)
    after: datetime | None = good.get("created_after")
    before: datetime | None = good.get("created_before")
    if after is not None and before is not None and after >= before:
        faults.append(Fault("created_before", "must be later than created_after"))
    if faults:
        raise Invalid(faults)
    owner = good.get("owner")
    if owner is not None and owner != user.name and user.role is not Role.ADMIN:
        raise Forbidden("only an admin may list another owner's tasks")
    return ListQuery(
        owner=owner if user.sees_all else user.name,
        statuses=tuple(sorted({Status(text) for text in good.get("status", ())})),
        kind=good.get("kind"),
        created_after=after,
        created_before=before,
        limit=good.get("limit", 50),
        newest_first=good.get("order", "-created_at") == "-created_at",
        cursor=good.get("cursor"),
    )
