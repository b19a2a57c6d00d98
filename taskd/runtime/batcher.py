"""Batching by back-pressure: while one run is in flight, the next callers line up, and one run then takes them all.

No timer decides: an idle server runs each item at once and alone, a busy one runs few large batches, and the
size of a batch follows from how long the one before it took. One bad item does not fail its neighbours: a
run answers it with an exception in its place, or raises `Rejected`, and then each item is tried alone.

Considered and refused: several runs in flight (batches get smaller, and order is lost), and a delay that lets a batch
grow (it costs each caller the delay, to spare a machine that is idle).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from taskd.errors import Rejected, Unavailable

K = TypeVar("K")
V = TypeVar("V")

_Batch = dict["asyncio.Future[V]", K]


class Batcher(Generic[K, V]):
    """Collects the items of many callers into few runs, in the order in which they came.

    Args:
        run: does a batch, and answers each item, in the same order, with a value or with an exception for its caller.
            If it raises, every caller of the batch gets that; for `Rejected` and more than one item, each
            item is first run alone, so a batch that raises it must have changed nothing.
        limit: items in one run at the most.
        waiting: items that may line up; further ones are refused.
    """

    def __init__(
        self,
        run: Callable[[list[K]], Awaitable[Sequence[V | Exception]]],
        *,
        limit: int = 1000,
        waiting: int = 20_000,
    ) -> None:
        self._run = run
        self._limit = limit
        self._most = waiting
        # Ordered by arrival; a caller who goes away takes his item out without a search.
        self._waiting: _Batch[V, K] = {}
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: K) -> V:
        """Have one item run and return its answer.

        If the caller is cancelled before its run begins, the item is not run; later, its answer is thrown away.

        Raises:
            Unavailable: too many are waiting, or the batcher is closed.
            Exception: the item's own answer, or what the run raised.
        """
        answer = self.put(item)
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    def put(self, item: K) -> asyncio.Future[V]:
        """As `submit`, without waiting: the answer is in the future, which is the caller's to cancel.

        Raises:
            Unavailable: too many are waiting, or the batcher is closed.
        """
        if self._closed:
            raise Unavailable("shutting down")
        if len(self._waiting) >= self._most:
            raise Unavailable(f"{self._most} calls of this kind are waiting already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V] = loop.create_future()
        self._waiting[answer] = item
        if self._worker is None:
            # Not a supervisor's task: it never fails, lives only while callers wait, and `close` sees it end.
            self._worker = loop.create_task(self._work(), name="batcher")
        return answer

    async def close(self) -> None:
        """Refuse new items, and return when those that wait are answered. Safe twice."""
        self._closed = True
        if self._worker is not None:
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        batch: _Batch[V, K] = {}
        try:
            while self._waiting:
                batch = self._take()
                if batch:
                    await self._answer(batch)
        except BaseException:
            # Only a cancellation from outside or the interpreter's end comes here; nobody may wait forever.
            for answer in (*batch, *self._waiting):
                if not answer.done():
                    answer.set_exception(Unavailable("shutting down"))
            raise
        finally:
            self._worker = None

    def _take(self) -> _Batch[V, K]:
        taken = list(islice(self._waiting.items(), self._limit))
        for answer, _ in taken:
            del self._waiting[answer]
        # A caller who was cancelled in this very moment has not had his turn yet to take his item out.
        return {answer: item for answer, item in taken if not answer.done()}

    async def _answer(self, batch: _Batch[V, K]) -> None:
        try:
            answers = await self._run(list(batch.values()))
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to {len(batch)} items")
        except Rejected as error:
            if len(batch) == 1:
                _fail(batch, error)
            else:
                await self._answer_alone(batch)
        except Exception as error:
            _fail(batch, error)
        else:
            for future, answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _answer_alone(self, batch: _Batch[V, K]) -> None:
        for future, item in batch.items():
            # A caller who went away meanwhile: the batch was refused whole, so his item has not been run.
            if not future.done():
                await self._answer({future: item})


def _fail(batch: _Batch[V, K], error: Exception) -> None:
    for future in batch:
        if not future.done():
            future.set_exception(error)
