"""Keys, scopes and the bytes of what is cached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.event import Event, EventKey, EventType
from taskd.domain.forms import parse_list_query
from taskd.domain.model import ListQuery, Page, Status, User
from taskd.service.views import event_scopes, pack_view, page_key, page_view, task_view, unpack_view
from tests.ws.serving import AT, make_task

ANN = User("ann")


def updated(status: Status, was: Status | None) -> Event:
    return Event(EventKey(7, 1), EventType.UPDATED, make_task("ann", status=status), AT, was)


@given(st.sampled_from(list(Status)), st.sampled_from(list(Status)), st.sets(st.sampled_from(list(Status))))
def test_an_event_ends_every_list_that_it_may_change(before: Status, after: Status, shown: set[Status]) -> None:
    scopes = set(event_scopes(updated(after, before)))
    for owner in ("ann", None):
        touched = page_key(ListQuery(owner, tuple(shown))).scope in scopes
        assert touched or (shown and before not in shown and after not in shown)
    assert page_key(ListQuery("ben", tuple(shown))).scope not in scopes
    # An event of before there was a `was`: any status may have been left.
    unknown = set(event_scopes(updated(after, None)))
    assert page_key(ListQuery("ann", tuple(shown))).scope in unknown


def test_pages_that_are_asked_for_alike_share_a_key() -> None:
    def key(*pairs: tuple[str, str]) -> object:
        return page_key(parse_list_query(ANN, pairs))

    same = [("status", "new"), ("status", "done"), ("limit", "50")]
    assert key(*same) == key(("status", "done"), ("status", "new")) == key(*same, ("order", "-created_at"))
    assert key(("status", "new"), ("status", "new")) == key(("status", "new"))
    others = [
        [("status", "new")], [("kind", "x")], [("limit", "1")], [("order", "created_at")],
        [("created_after", "2026-01-01T00:00:00Z")], [("created_before", "2026-01-01T00:00:00Z")],
        [("created_before", "9999-12-31T23:59:59.999998Z")], [("created_before", "9999-12-31T23:59:59.999997Z")],
    ]  # fmt: skip
    assert len({key(), *(key(*pairs) for pairs in others)}) == len(others) + 1
    assert page_key(ListQuery("ann")) != page_key(ListQuery("ben")) != page_key(ListQuery(None))
    assert len({page_key(ListQuery("ann", cursor=cursor)) for cursor in ("a", "b", None)}) == 3


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.booleans())
def test_a_view_survives_its_packing(owner: str, more: bool) -> None:
    task = make_task(owner, payload_json='{"a": "\\u0000"}')
    for view in (task_view(task), page_view(Page((task,), "cursor" if more else None))):
        assert unpack_view(pack_view(view)) == view
    with pytest.raises(ValueError, match="unpack"):
        unpack_view(b"garbage")
