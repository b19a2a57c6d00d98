"""REST under load: the same few requests, as fast as they are answered, over kept connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from taskd.cli.load.rows import Row
from taskd.cli.load.target import ANSWER_WITHIN, Answer, Caller, Refused, Target, path_of
from taskd.cli.load.tasks import Progress, Tasks, together


class Driver(Caller):
    """A connection that asks the next as soon as the last is answered.

    Args:
        requests: what is asked, shared with other connections.
        on_answer: told of each answer, but 429, and of the seconds that it took.
    """

    def __init__(self, target: Target, requests: Iterator[bytes], on_answer: Callable[[Answer, float], None]) -> None:
        super().__init__(target)
        self._requests = requests
        self._on_answer = on_answer
        self._begun = 0.0
        self._until = 0.0
        self._done: asyncio.Future[None] | None = None

    async def drive(self, seconds: float) -> None:
        """Ask for so many seconds, or until there is nothing more to be asked."""
        loop = asyncio.get_running_loop()
        await self.ready()
        self._done = loop.create_future()
        self._until = perf_counter() + seconds
        self._next()
        try:
            await self._guarded(asyncio.shield(self._done), seconds + ANSWER_WITHIN)
        finally:
            self._until = 0.0

    def _next(self) -> None:
        request = None if perf_counter() >= self._until else next(self._requests, None)
        if request is None:
            self._answer = None
            if self._done is not None and not self._done.done():
                self._done.set_result(None)
            return
        if self._transport is None:
            return  # whoever lost it has said so
        # What `Caller` waits for at the end, so that no change is left half known.
        self._answer = asyncio.get_running_loop().create_future()
        self._begun = perf_counter()
        self._transport.write(request)

    def _settle(self, answer: Answer) -> None:
        took = perf_counter() - self._begun
        super()._settle(answer)
        if answer.status == 429:
            self._target.limited += 1
            rest = max(0.0, self._until - perf_counter())
            asyncio.get_running_loop().call_later(min(answer.pause, rest), self._next)
            return
        try:
            self._on_answer(answer, took)
        except Exception as error:
            self._end(error)
        else:
            self._next()

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self._end(error)

    def _end(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
            # Whoever waited may be gone.
            self._done.exception()


async def asked(
    name: str, target: Target, requests: Iterable[bytes], wanted: int, connections: int, seconds: float
) -> Row:
    """Ask for so many seconds over so many connections; `wanted` is the status of a good answer."""
    row = Row(name, "answers/s")
    limited = target.limited
    shared = iter(requests)

    def answered(answer: Answer, took: float) -> None:
        if answer.status != wanted:
            raise Refused(f"answered with {answer.status}: {answer.detail}")
        row.times.append(took)

    async def drive() -> None:
        async with Driver(target, shared, answered) as driver:
            await driver.drive(seconds)

    begun = perf_counter()
    try:
        await together(drive() for _ in range(connections))
    except Refused as error:
        row.fault = str(error)
    row.number = len(row.times)
    row.value = row.number / (perf_counter() - begun)
    row.limited = target.limited - limited
    if not row.number and row.fault is None:
        row.fault = "nothing was answered in time"
    return row


async def rest(
    target: Target, tasks: Tasks, number: int, connections: int, seconds: float, tell: Progress
) -> list[Row]:
    """Measure reads of what the server has at hand, creates, and reads of what it has not."""
    ids = await tasks.make(max(number, 50))
    rows = []

    async def add(name: str, requests: Iterable[bytes], wanted: int = 200) -> None:
        tell(f"{name}, {seconds:g} s over {connections} connections")
        rows.append(await asked(name, target, requests, wanted, connections, seconds))

    # Each only once, so that none is cached by a read before; the newest first, which the list below would bring near.
    await add("GET of a task, uncached", (target.request("GET", path_of(one)) for one in ids))
    await add("GET of a task, cached", itertools.repeat(target.request("GET", path_of(ids[0]))))
    await add("GET of a list of 50, cached", itertools.repeat(target.request("GET", "/tasks?limit=50")))
    await add("POST of a task", itertools.repeat(target.request("POST", "/tasks", tasks.body())), 201)
    return rows
