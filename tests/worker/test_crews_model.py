"""Workers that come, break off, come back and go in any order: none gets too much, no task is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.domain.model import Status, User
from taskd.worker.result import Failed, GivenBack, Returned
from taskd.worker.session import Session, Turn
from tests.waiting import eventually
from tests.worker.model import FakeClock, Rig, running

USER = User("worker")
ENDS = (Returned("1"), Failed("Oops", "no luck", after=0.0), GivenBack())

STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 6)),
    st.tuples(st.just("open"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["cut", "back", "forget", "leave", "close", "silence", "cancel"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["done", "failed", "released"]), st.integers(0, 7)),
)


BEGINNING = (("open", 3), ("open", 2), ("add", 6))
"""Without these most examples would be of workers that have nothing to do."""


class Far:
    """A worker as it sees itself: what it was told, and has not answered."""

    def __init__(self, rig: Rig, slots: int) -> None:
        self.rig = rig
        self.slots = slots
        self.held: set[Turn] = set()
        self.settled: list[tuple[Turn, bool]] = []
        self.session: Session = rig.worker.crews.open(USER, ("work",), slots, 30.0, "far")
        self.stream: int | None = rig.worker.crews.attach(self.session, ())

    def listen(self) -> None:
        """Take in what it is told."""
        if self.stream is None:
            return
        said = self.session.fetch()
        for task, claim in zip(said.tasks, said.claims, strict=True):
            assert (task.id, task.attempt) not in {turn[:2] for turn in self.held}
            self.held.add((task.id, task.attempt, claim))
        assert len(self.held) <= self.slots
        # What it is taken to run, it knows of.
        assert {one.turn for one in self.session._handed_out.values() if one.ended is None} <= self.held
        # It stops at once what it is to stop.
        for turn in said.cancels:
            self.answer(turn, GivenBack())
        self.settled += said.acks

    def answer(self, turn: Turn, ended: Any) -> None:
        self.held.discard(turn)
        self.session.result(turn, ended)

    def cut(self, *, closed: bool = False) -> None:
        if self.stream is not None:
            self.rig.worker.crews.detach(self.session, self.stream, closed=closed)
            self.stream = None

    def back(self, *, forgetful: bool = False) -> None:
        """Connect again, also over a stream that seems to be there."""
        if forgetful:
            self.held.clear()
        crews = self.rig.worker.crews
        found = crews.resume(self.session.id, USER, ("work",), self.slots, 30.0)
        if found is None:
            self.held.clear()
            self.cut()
            self.session = crews.open(USER, ("work",), self.slots, 30.0, "far")
        else:
            assert found is self.session
        self.stream = crews.attach(self.session, list(self.held))


class World:
    """The rig, and all workers of it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.rig = Rig(grace=0.0, clock=self.clock)
        self.far: list[Far] = []
        self.cancelled: set[UUID] = set()

    def step(self, what: str, number: int) -> None:
        if what == "add":
            for _ in range(number):
                self.rig.store.add(max_attempts=100)
            self.rig.worker.crews.ready("work")
        elif what == "open":
            self.far.append(Far(self.rig, number))
        elif self.far:
            self._of_one(what, number, self.far[number % len(self.far)])

    def _of_one(self, what: str, number: int, far: Far) -> None:
        if what == "cut":
            far.cut()
        elif what in ("back", "forget"):
            far.back(forgetful=what == "forget")
        elif what == "leave":
            far.session.leave()
        elif what == "close" and far.stream is not None:
            far.session.leave()
            far.cut(closed=True)
        elif what == "silence":
            far.cut()
            far.session._heard_at -= 30
        elif far.held and far.stream is not None:
            key = sorted(far.held)[number % len(far.held)]
            if what == "cancel":
                self.cancelled.add(key[0])
                self.rig.worker.cancel(*key[:2])
            else:
                far.answer(key, ENDS[("done", "failed", "released").index(what)])

    async def turn(self) -> None:
        """Let what was done come about."""
        await self.rig.worker.crews.run_once()
        for _ in range(20):
            await asyncio.sleep(0)
        for far in self.far:
            far.listen()

    async def end(self) -> None:
        """One more worker comes, and does all that is left once the others are gone."""
        for far in self.far:
            far.cut()
            far.session._heard_at -= 30
        last = Far(self.rig, 3)

        async def all_ended() -> bool:
            await self.turn()
            last.listen()
            for key in sorted(last.held):
                last.answer(key, ENDS[0])
            return all(task.is_final for task in self.rig.store.tasks.values())

        await eventually(all_ended)
        await eventually(lambda: self.rig.worker.crews.busy == 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=20, max_size=60))
async def test_no_worker_gets_more_than_its_slots_and_every_task_ends(steps: list[tuple[str, int]]) -> None:
    world = World()
    store = world.rig.store
    async with running(world.rig):
        lease = world.rig.worker.keeper.lease
        for what, number in (*BEGINNING, *steps):
            world.step(what, number)
            await world.turn()
        await world.end()
        for task in store.tasks.values():
            allowed = {Status.DONE, Status.CANCELLED} if task.id in world.cancelled else {Status.DONE}
            assert task.status in allowed
        # Each attempt had one end, and no worker ever cost the process its lease.
        assert all(accepted for _, accepted in store.outcomes)
        assert world.rig.worker.keeper.lease == lease
