"""The table of states is the one that users were told of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain.model import FINAL, Status
from taskd.domain.state import DELETABLE, RESCHEDULABLE, TRANSITIONS, Change, next_status
from taskd.errors import Conflict

ALLOWED = {
    ("scheduled", "new"),
    ("new", "scheduled"),
    ("new", "running"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "scheduled"),
    ("running", "cancelled"),
    ("new", "cancelled"),
    ("scheduled", "cancelled"),
    ("failed", "new"),
    ("cancelled", "new"),
}


def test_the_table_has_the_moves_of_the_contract_and_no_others() -> None:
    moves = {(a.value, b.value) for by in TRANSITIONS.values() for a, b in by.items() if a is not b}
    assert moves == ALLOWED


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("status", Status)
def test_each_status_takes_a_change_or_names_both_in_its_refusal(status: Status, change: Change) -> None:
    expected = TRANSITIONS[change].get(status)
    if expected is not None:
        assert next_status(status, change) is expected
        return
    with pytest.raises(Conflict) as caught:
        next_status(status, change)
    assert status.value in str(caught.value)
    assert change.value in str(caught.value)


@given(st.lists(st.sampled_from(Change), max_size=50))
def test_no_sequence_of_changes_leaves_a_final_status_except_by_a_retry(changes: list[Change]) -> None:
    status = Status.NEW
    for change in changes:
        try:
            after = next_status(status, change)
        except Conflict:
            continue
        if status in FINAL and after is not status:
            assert change is Change.RERUN
            assert status is not Status.DONE
        status = after


def test_only_a_claim_starts_a_task() -> None:
    assert [c for c, by in TRANSITIONS.items() for a, b in by.items() if b is Status.RUNNING and a is not b] == [
        Change.CLAIM
    ]


def test_what_runs_can_be_neither_deleted_nor_rescheduled() -> None:
    assert Status.RUNNING not in DELETABLE | RESCHEDULABLE
    assert set(Status) - DELETABLE == {Status.RUNNING}
    assert not RESCHEDULABLE & FINAL
