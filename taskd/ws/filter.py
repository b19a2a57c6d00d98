"""What a client may say, and which events it wants to hear of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from taskd.domain.codec import Repeated, read_json
from taskd.domain.event import Event
from taskd.domain.fields import Choice, Id, ListOf
from taskd.domain.forms import KIND, Entry, Form
from taskd.domain.model import Status
from taskd.errors import Fault, Invalid

MAX_KINDS = 100
MAX_TASKS = 1000

SUBSCRIBE = Form(
    {
        "type": Entry(Choice(("subscribe",)), "replaces the filter"),
        "kinds": Entry(ListOf(KIND, 0, MAX_KINDS), "only tasks of these kinds; empty: of all", ()),
        "statuses": Entry(
            ListOf(Choice(tuple(Status)), 0, len(Status)), "only changes that lead to these; empty: all", ()
        ),
        "tasks": Entry(ListOf(Id(), 0, MAX_TASKS), "only these tasks; empty: all", ()),
    }
)
PING = Form({"type": Entry(Choice(("ping",)), "answered with pong")})
FORMS: Mapping[str, Form] = {"subscribe": SUBSCRIBE, "ping": PING}
"""Messages of clients, by their `type`."""


class Filter(NamedTuple):
    """Which events a connection wants; an empty set restricts nothing."""

    kinds: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    tasks: frozenset[UUID] = frozenset()

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.kinds or self.statuses or self.tasks)

    def takes(self, event: Event) -> bool:
        """Return whether the event is wanted."""
        task = event.task
        return (
            (not self.kinds or task.kind in self.kinds)
            and (not self.statuses or task.status in self.statuses)
            and (not self.tasks or task.id in self.tasks)
        )


ALL = Filter()


class Ping:
    """The client asks for a sign of life."""


def read_message(text: str) -> Filter | Ping:
    """Return what a client's text message asks for.

    Raises:
        Malformed: no JSON.
        Invalid: no message that is known here; names each fault.
    """
    value: Any = read_json(text.encode())
    if not isinstance(value, dict):
        raise Invalid([Fault("message", "must be a JSON object")])
    type_ = value.get("type")
    form = FORMS.get(type_) if isinstance(type_, str) else None
    if form is None or (isinstance(value, Repeated) and value.key == "type"):
        raise Invalid([Fault("type", f"must be one of: {', '.join(FORMS)}; and be given once")])
    faults: list[Fault] = []
    good = form.check(value, faults)
    if faults:
        raise Invalid(faults)
    if form is PING:
        return Ping()
    return Filter(*(frozenset(good.get(name, ())) for name in ("kinds", "statuses", "tasks")))
