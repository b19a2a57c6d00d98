"""What waits for a shared cache: nothing that has ended is lost, and everything is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskd.cache import outbox as limits
from taskd.cache.outbox import Offer, Outbox, Parcel
from taskd.cache.port import Key, Ticket


def offer(scope: str, payload: bytes = b"v", name: str = "") -> Offer:
    return Offer(Key("task", scope, name), Ticket(b"", 0), payload)


def test_ends_go_before_offers_and_are_held_until_confirmed() -> None:
    outbox = Outbox()
    assert outbox.offer(offer("a"))
    outbox.end(["b"])
    assert outbox
    assert outbox.take() == Parcel(False, ("b",), (offer("a"),))
    assert not outbox
    assert outbox.holds("b")
    outbox.confirm()
    assert not outbox.holds("b")


def test_an_end_while_the_one_before_is_on_its_way_needs_a_way_of_its_own() -> None:
    outbox = Outbox()
    outbox.end(["a"])
    outbox.take()
    outbox.end(["a"])
    outbox.confirm()
    assert outbox.holds("a")
    assert outbox.take().ended == ("a",)


def test_what_may_not_have_arrived_is_sent_again_but_no_values() -> None:
    outbox = Outbox()
    outbox.offer(offer("a"))
    outbox.end(["b"])
    outbox.take()
    outbox.restore()
    assert outbox.holds("b")
    assert outbox.take() == Parcel(False, ("b",), ())


def test_the_end_of_everything_is_restored_too_and_holds_all_scopes() -> None:
    outbox = Outbox()
    outbox.end_all()
    assert outbox.take() == Parcel(True, (), ())
    assert outbox.holds("any")
    outbox.restore()
    assert outbox.take() == Parcel(True, (), ())
    outbox.confirm()
    assert not outbox.holds("any")


def test_a_scope_that_ends_while_everything_does_is_ended_once_more() -> None:
    outbox = Outbox()
    outbox.end_all()
    outbox.take()
    outbox.end(["a"])
    outbox.confirm()
    assert outbox.take() == Parcel(False, ("a",), ())


def test_too_many_ends_become_the_end_of_everything() -> None:
    outbox = Outbox()
    outbox.end(str(number) for number in range(limits.MOST_ENDED))
    assert not outbox.holds("other")
    outbox.end(["one more"])
    assert outbox.holds("other")
    outbox.end(["and more"])
    assert outbox.take() == Parcel(True, (), ())


def test_offers_are_bounded_by_number_and_bytes() -> None:
    outbox = Outbox()
    assert all(outbox.offer(offer(str(number))) for number in range(limits.MOST_KEPT))
    assert not outbox.offer(offer("one more"))
    assert outbox.offer(offer("0", b"in the place of another"))
    outbox = Outbox()
    assert outbox.offer(offer("a", bytes(limits.MOST_KEPT_BYTES)))
    assert not outbox.offer(offer("b", b"v"))
    assert outbox.offer(offer("a", b"v"))
    assert outbox.offer(offer("b", b"v"))


def test_of_two_values_of_one_key_the_one_that_was_asked_for_later_is_kept() -> None:
    outbox = Outbox()
    late, early = (offer("a")._replace(ticket=Ticket(b"", at)) for at in (2, 1))
    assert outbox.offer(late)
    assert not outbox.offer(early)
    assert outbox.take().offers == (late,)
    assert outbox.offer(early)
    assert outbox.offer(late)
    assert outbox.take().offers == (late,)


def test_nothing_is_offered_for_what_has_ended() -> None:
    outbox = Outbox()
    outbox.end(["a"])
    assert not outbox.offer(offer("a"))
    outbox.take()
    assert not outbox.offer(offer("a"))
    outbox.confirm()
    assert outbox.offer(offer("a"))


def test_what_ends_while_it_waits_is_not_sent() -> None:
    outbox = Outbox()
    outbox.offer(offer("a"))
    outbox.offer(offer("b"))
    outbox.end(["a"])
    assert outbox.take() == Parcel(False, ("a",), (offer("b"),))
    outbox.confirm()
    outbox.offer(offer("c"))
    outbox.end_all()
    assert outbox.take() == Parcel(True, (), ())
    assert outbox._offered == 0


def test_a_parcel_is_bounded_and_values_wait_for_the_ends() -> None:
    outbox = Outbox()
    outbox.end(str(number) for number in range(limits.PARCEL_ENDED + 1))
    for number in range(limits.PARCEL_KEPT + 1):
        outbox.offer(offer("kept", name=str(number)))
    first = outbox.take()
    assert (len(first.ended), len(first.offers)) == (limits.PARCEL_ENDED, 0)
    outbox.confirm()
    second = outbox.take()
    assert (len(second.ended), len(second.offers)) == (1, limits.PARCEL_KEPT)
    outbox.confirm()
    assert len(outbox.take().offers) == 1
    assert not outbox
    outbox.confirm()
    for name in "abc":
        outbox.offer(offer("kept", bytes(limits.PARCEL_BYTES // 2 + 1), name))
    assert len(outbox.take().offers) == 2


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["end", "all", "take and confirm", "take and restore", "take, end and confirm"]),
            st.sampled_from("abc"),
        )
    )
)
def test_a_scope_is_held_exactly_while_its_end_has_not_arrived(steps: list[tuple[str, str]]) -> None:
    outbox = Outbox()
    held: set[str] = set()
    for step, scope in steps:
        if step == "end":
            outbox.end([scope])
            held.add(scope)
        elif step == "all":
            outbox.end_all()
            held.update("abc")
        else:
            parcel = outbox.take()
            assert set("abc" if parcel.all_ended else parcel.ended) == held
            if step == "take and restore":
                outbox.restore()
            else:
                late = {scope} if "end" in step else set()
                outbox.end(late)
                outbox.confirm()
                held = late
        assert {scope for scope in "abc" if outbox.holds(scope)} == held
        assert bool(outbox) == bool(held)
