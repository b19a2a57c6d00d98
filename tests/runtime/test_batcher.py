import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.errors import NotFound, Unavailable
from taskd.runtime.batcher import Batcher

pytestmark = pytest.mark.timeout(30)


class Runs:
    """A run that notes its batches, doubles each number, and waits at a gate while that is closed."""

    def __init__(self, *, open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        if open:
            self.gate.set()

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.begun.release()
        await self.gate.wait()
        return [NotFound(str(item)) if item < 0 else item * 2 for item in items]


def submit_all(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


async def blocked(batcher: Batcher[int, int], runs: Runs) -> asyncio.Task[int]:
    """Have a first run in flight, so that what comes next must wait."""
    [first] = submit_all(batcher, [0])
    await runs.begun.acquire()
    return first


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_idle_batcher_runs_an_item_alone() -> None:
    runs = Runs()
    batcher = Batcher(runs)
    assert [await batcher.submit(1), await batcher.submit(2)] == [2, 4]
    assert runs.batches == [[1], [2]]


async def test_those_who_wait_share_the_next_run_in_order() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs)
    first = await blocked(batcher, runs)
    rest = submit_all(batcher, range(1, 50))
    await turns()
    assert runs.batches == [[0]]
    runs.gate.set()
    assert await asyncio.gather(first, *rest) == [item * 2 for item in range(50)]
    assert runs.batches == [[0], list(range(1, 50))]


async def test_a_run_takes_no_more_than_the_limit() -> None:
    runs = Runs()
    batcher = Batcher(runs, limit=4)
    assert await asyncio.gather(*submit_all(batcher, range(10))) == [item * 2 for item in range(10)]
    assert runs.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_an_exception_among_the_answers_is_one_callers_alone() -> None:
    answers = await asyncio.gather(*submit_all(Batcher(Runs()), [1, -7, 3]), return_exceptions=True)
    assert answers[0::2] == [2, 6]
    assert isinstance(answers[1], NotFound)
    assert str(answers[1]) == "-7"


async def test_a_batch_refused_whole_is_tried_one_by_one() -> None:
    batches: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        batches.append(items)
        if any(item < 0 for item in items):
            raise NotFound(f"one of {items}")
        return items

    batcher: Batcher[int, int] = Batcher(run)
    answers = await asyncio.gather(*submit_all(batcher, [1, -2, 3]), return_exceptions=True)
    assert batches == [[1, -2, 3], [1], [-2], [3]]
    assert answers[0::2] == [1, 3]
    assert isinstance(answers[1], NotFound)
    assert str(answers[1]) == "one of [-2]"
    assert await batcher.submit(4) == 4


async def test_one_who_goes_away_while_a_refused_batch_is_tried_alone_is_skipped() -> None:
    batches: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        batches.append(items)
        if len(items) > 1:
            raise NotFound("some")
        if items == [1]:
            tasks[1].cancel()
        return items

    batcher: Batcher[int, int] = Batcher(run)
    tasks = submit_all(batcher, [1, 2, 3])
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert batches == [[1, 2, 3], [1], [3]]
    assert isinstance(answers[1], asyncio.CancelledError)


async def test_a_run_that_fails_fails_for_all_of_it_and_is_not_repeated() -> None:
    batches: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        batches.append(items)
        raise Unavailable("no database")

    batcher: Batcher[int, int] = Batcher(run)
    answers = await asyncio.gather(*submit_all(batcher, [1, 2]), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["no database"] * 2
    assert batches == [[1, 2]]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_wrong_number_of_answers_is_an_error_for_all(count: int) -> None:
    async def run(items: list[int]) -> list[int]:
        return [0] * count

    answers = await asyncio.gather(*submit_all(Batcher(run), [1, 2]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError]
    assert str(answers[0]) == f"{count} answers to 2 items"


async def test_one_who_goes_away_while_waiting_is_not_run() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs)
    first = await blocked(batcher, runs)
    tasks = submit_all(batcher, [1, 2, 3])
    await turns()
    tasks[1].cancel()
    runs.gate.set()
    answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert runs.batches == [[0], [1, 3]]
    assert list(answers[:2]) == [0, 2]
    assert isinstance(answers[2], asyncio.CancelledError)


async def test_one_who_goes_away_in_the_very_turn_of_the_taking_is_not_run() -> None:
    batches: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        batches.append(items)
        if items == [0]:
            await turns()
            for task in tasks:
                # Its future is cancelled now; the caller itself has its turn only after the next run is taken.
                task.cancel()
        return items

    batcher: Batcher[int, int] = Batcher(run)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0)
    tasks = submit_all(batcher, [1, 2])
    assert await first == 0
    await asyncio.wait(tasks)
    assert batches == [[0]]
    assert await batcher.submit(5) == 5


async def test_one_who_goes_away_during_the_run_harms_nobody() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs)
    tasks = submit_all(batcher, [1, -2, 3])
    await runs.begun.acquire()
    tasks[0].cancel()
    tasks[1].cancel()
    await turns()
    assert tasks[0].cancelled()
    runs.gate.set()
    assert await tasks[2] == 6
    assert await batcher.submit(4) == 8


async def test_a_full_line_refuses_and_a_place_given_up_is_free() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs, waiting=2)
    first = await blocked(batcher, runs)
    tasks = submit_all(batcher, [1, 2])
    await turns()
    with pytest.raises(Unavailable, match="2 calls"):
        await batcher.submit(3)
    tasks[0].cancel()
    await turns()
    [third] = submit_all(batcher, [3])
    runs.gate.set()
    assert list(await asyncio.gather(first, tasks[1], third)) == [0, 4, 6]


async def test_close_answers_who_waits_and_refuses_who_comes() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs)
    first = await blocked(batcher, runs)
    rest = submit_all(batcher, [1, 2])
    await turns()
    closing = asyncio.create_task(batcher.close())
    await turns()
    with pytest.raises(Unavailable, match="shutting down"):
        await batcher.submit(3)
    assert not closing.done()
    runs.gate.set()
    await closing
    assert await asyncio.gather(first, *rest) == [0, 2, 4]
    await batcher.close()


async def test_close_of_an_idle_one_returns() -> None:
    batcher = Batcher(Runs())
    await batcher.close()
    with pytest.raises(Unavailable):
        await batcher.submit(1)


async def test_an_idle_batcher_has_no_task() -> None:
    batcher = Batcher(Runs())
    await batcher.submit(1)
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_when_its_task_is_cancelled_from_outside_nobody_waits_forever() -> None:
    runs = Runs(open=False)
    batcher = Batcher(runs)
    first = await blocked(batcher, runs)
    [second] = submit_all(batcher, [1])
    await turns()
    [worker] = [task for task in asyncio.all_tasks() if task.get_name() == "batcher"]
    worker.cancel()
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["good", "bad", "poison"])),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("release"), st.just(0)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=60,
)


@given(steps=STEPS, limit=st.integers(1, 5), waiting=st.integers(1, 8))
def test_whatever_happens_each_caller_gets_his_own_answer(
    steps: list[tuple[str, Any]], limit: int, waiting: int
) -> None:
    asyncio.run(play(steps, limit, waiting))


async def play(steps: list[tuple[str, Any]], limit: int, waiting: int) -> None:
    gate = asyncio.Semaphore(0)
    done: list[int] = []
    running = 0

    async def run(items: list[tuple[int, str]]) -> list[int | Exception]:
        nonlocal running
        running += 1
        assert running == 1, "two runs at once"
        assert 1 <= len(items) <= limit
        assert [number for number, _ in items] == sorted(number for number, _ in items)
        await gate.acquire()
        running -= 1
        if any(sort == "poison" for _, sort in items):
            raise NotFound("poison")
        done.extend(number for number, _ in items)
        return [KeyError(number) if sort == "bad" else number for number, sort in items]

    batcher: Batcher[tuple[int, str], int] = Batcher(run, limit=limit, waiting=waiting)
    callers: list[tuple[str, asyncio.Task[int]]] = []
    cancelled = set()
    for step, value in steps:
        if step == "submit":
            callers.append((value, asyncio.create_task(batcher.submit((len(callers), value)))))
        elif step == "cancel" and value < len(callers) and callers[value][1].cancel():
            cancelled.add(value)
        elif step == "release":
            gate.release()
        elif step == "turn":
            await asyncio.sleep(0)
    for _ in range(len(callers) * 2 + 2):
        gate.release()
    answers = await asyncio.gather(*(task for _, task in callers), return_exceptions=True)
    await batcher.close()

    assert len(done) == len(set(done)), "an item was done twice"
    assert done == sorted(done), "items changed places"
    for number, ((sort, _), answer) in enumerate(zip(callers, answers, strict=True)):
        if number in cancelled:
            assert isinstance(answer, asyncio.CancelledError)
        elif isinstance(answer, Unavailable):
            assert number not in done, "refused for a full line, and done"
        elif sort == "good":
            assert answer == number
            assert number in done
        elif sort == "bad":
            assert isinstance(answer, KeyError)
            assert answer.args == (number,)
        else:
            assert isinstance(answer, NotFound)
