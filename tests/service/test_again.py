"""Answers that may be given again, over a cache and a clock that stand still."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.domain.forms import TaskPatch
from taskd.domain.model import User
from taskd.service.again import KEPT, KEPT_FOR, SURE_FOR, GivenAnswers
from taskd.service.ports import View
from tests.service.slow_store import ANN, ONE, TWO, World
from tests.ws.serving import make_task

LOGGER = logging.getLogger("taskd.test.again")


class Answer(NamedTuple):
    view: View
    user: User


class Answers:
    """Answers by number, about one of two tasks of a world, of which another process may make a new version."""

    def __init__(self) -> None:
        self.world = World()
        for number in (1, 2):
            self.world.store.put(make_task("ann", number=number))
        self.looks = 0
        self.believed = True
        self.given: GivenAnswers[int, Answer] = GivenAnswers(
            self.world.reads, self._believes, LOGGER, lambda: self.world.now
        )

    def _believes(self, user: User) -> bool:
        self.looks += 1
        return self.believed

    async def read(self, task_id: UUID = ONE) -> View:
        return await self.world.reads.task(ANN, task_id)

    async def keep(self, asked: int, task_id: UUID = ONE) -> None:
        self.given.keep(asked, Answer(await self.read(task_id), ANN), 100)

    def find(self, asked: int = 1) -> Answer | None:
        return self.given.find(asked, self.world.now)


@pytest.fixture
def answers() -> Iterator[Answers]:
    LOGGER.setLevel(logging.WARNING)
    yield Answers()
    LOGGER.setLevel(logging.NOTSET)


async def test_one_look_is_enough_for_a_while_and_each_use_is_a_read(answers: Answers) -> None:
    await answers.keep(1)
    hits = answers.world.counted()[0]
    assert all(answers.find() for _ in range(5))
    assert (answers.looks, answers.world.counted()[0]) == (1, hits + 5)
    answers.world.now += SURE_FOR
    assert all(answers.find() for _ in range(5))
    assert (answers.looks, answers.world.counted()[0]) == (2, hits + 10)


async def test_nothing_is_known_of_what_was_not_kept(answers: Answers) -> None:
    await answers.keep(1)
    assert answers.find(2) is None


async def test_a_change_is_seen_at_once(answers: Answers) -> None:
    await answers.keep(1, ONE)
    await answers.keep(2, TWO)
    assert answers.find(1)
    assert answers.find(2)
    await answers.world.tasks.update(ANN, ONE, TaskPatch({"title": "new"}))
    assert answers.find(1) is None
    assert answers.find(2)


async def test_another_database_is_seen_at_once(answers: Answers) -> None:
    await answers.keep(1)
    assert answers.find()
    answers.world.reads.begin_anew()
    assert answers.find() is None


async def test_what_another_reader_has_loaded_since_is_not_gone_behind(answers: Answers) -> None:
    await answers.keep(1)
    answers.world.now += 29.97
    assert answers.find()
    # The view's time is over, and nobody has told of what another process did to it.
    answers.world.now += 0.04
    answers.world.store.put(make_task("ann", number=1, title="newer", version=2))
    await answers.read()
    assert answers.find() is None


@pytest.mark.parametrize("what", ["belief", "view", "silence"])
async def test_what_ends_by_itself_ends_soon(answers: Answers, what: str) -> None:
    await answers.keep(1)
    if what == "view":
        answers.world.now += 30 - SURE_FOR / 2
        assert answers.find()
        answers.world.now += SURE_FOR / 2
    elif what == "belief":
        assert answers.find()
        answers.believed = False
    else:
        assert answers.find()
        LOGGER.setLevel(logging.INFO)
    assert answers.find(), "it is sure for now"
    answers.world.now += SURE_FOR
    assert answers.find() is None


async def test_what_had_to_leave_is_not_held(answers: Answers) -> None:
    await answers.keep(0)
    assert answers.find(0)
    for number in range(1, KEPT + 1):
        await answers.keep(number)
    assert answers.find(0) is None
    answers.world.now += KEPT_FOR
    await answers.keep(-1)
    assert len(answers.given._sure) == 0


STEPS = st.one_of(
    st.tuples(st.just("find"), st.integers(0, 3)),
    st.tuples(st.just("keep"), st.integers(0, 3)),
    st.tuples(st.just("change"), st.sampled_from([0, 1])),
    st.tuples(st.just("wait"), st.sampled_from([SURE_FOR / 3, SURE_FOR, 29.9, 61.0])),
    st.tuples(st.just("believe"), st.sampled_from([0, 1])),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=40))
async def test_what_is_given_again_is_never_behind_a_change(steps: list[tuple[str, float]]) -> None:
    """Whatever happens, an answer shows what its task is now, to who was believed `SURE_FOR` ago or later."""
    LOGGER.setLevel(logging.WARNING)
    answers, doubted_at = Answers(), None
    ids = (ONE, TWO)
    for what, value in steps:
        number = int(value)
        if what == "keep":
            await answers.keep(number, ids[number % 2])
        elif what == "change":
            await answers.world.tasks.update(ANN, ids[number], TaskPatch({"title": "new"}))
        elif what == "wait":
            answers.world.now += value
        elif what == "believe":
            answers.believed = bool(number)
            doubted_at = None if number else answers.world.now if doubted_at is None else doubted_at
        elif (found := answers.find(number)) is not None:
            assert found.view.etag == (await answers.read(ids[number % 2])).etag
            assert doubted_at is None or answers.world.now < doubted_at + SURE_FOR
