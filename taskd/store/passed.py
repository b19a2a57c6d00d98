"""How far the queue has been claimed, so that a claim need not pass again what others have passed.

The index of ready tasks keeps an entry of each task that was ready until no transaction can see it as such: a snapshot
that somebody holds open for minutes keeps those of minutes, all of them before the first that is still ready. A claim
that begins at the front reads them all, each time.

So a store whose process follows the log remembers, for each kind and priority, the greatest id that it claimed, and
claims begin behind it. What becomes ready before that place is told by the log, which moves the place back. That is
all that is needed but for a claim elsewhere that stepped over a task's row and was rolled back: of that the log tells
nothing. So now and then a claim looks at a kind from the front, and then not again for some times as long as it took.

Priorities are taken as ranks here, the highest first: `-priority`, as the index has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

FIRST, LAST = -100, 100
"""Ranks that a task can have."""

NO_ID = UUID(int=0)
"""Before every task's id."""

SHARE, LONGEST = 20, 30.0
"""A look from the front is followed by so many times as long without one, up to so many seconds: one that took long
because the database hung must not keep what it did not see from being found."""

MOST = 8
"""Ranks of one kind with a place of their own: each costs a look into the index."""


class Range(NamedTuple):
    """Ready tasks of a kind, behind (`rank`, `after`) and up to the end of rank `last`."""

    kind: str
    rank: int
    after: UUID
    last: int


class Look:
    """One claim under way: what became ready meanwhile, it may not have seen. It looks at `whole` from the front."""

    def __init__(self, ranges: Sequence[Range], whole: frozenset[str]) -> None:
        self.ranges = ranges
        self.whole = whole
        self.kinds = frozenset(one.kind for one in ranges)
        # The least id of each kind and rank: no more than that, however long the database takes.
        self.readied: dict[tuple[str, int], UUID] = {}

    def note(self, kind: str, rank: int, task_id: UUID) -> None:
        """Take note of what became ready."""
        if kind in self.kinds:
            self.readied[kind, rank] = min(task_id, self.readied.get((kind, rank), task_id))


class Passed:
    """The places of all kinds. Nothing here waits or asks."""

    def __init__(self) -> None:
        self._places: dict[str, dict[int, UUID]] = {}
        self._looks: set[Look] = set()
        # For each kind, or those that claim often would leave the others none.
        self._whole_at: dict[str, float] = {}

    def begin(self, kinds: Iterable[str], now: float, *, follows: bool) -> Look:
        """Return where a claim is to look; `end` must follow."""
        kinds = tuple(kinds)
        whole = frozenset(kind for kind in kinds if not follows or now >= self._whole_at.get(kind, now))
        ranges = [one for kind in kinds for one in _ranges(kind, {} if kind in whole else self._places.get(kind, {}))]
        look = Look(ranges, whole)
        self._looks.add(look)
        return look

    def claimed(self, look: Look, claimed: Iterable[tuple[str, int, UUID]]) -> None:
        """Take note of what a look got, as kind, rank and id, in its order; more than once, if it looked again."""
        for kind, rank, task_id in claimed:
            places = self._places.setdefault(kind, {})
            places.pop(rank, None)
            places[rank] = task_id
            if len(places) > MOST:
                del places[next(iter(places))]
        for (kind, rank), task_id in look.readied.items():
            self._back(kind, rank, task_id)

    def end(self, look: Look, took: float, now: float) -> None:
        """Take note of how long a look took that is over."""
        self._looks.discard(look)
        for kind in look.whole:
            self._whole_at[kind] = now + min(SHARE * took, LONGEST)

    def readied(self, kind: str, priority: int, task_id: UUID) -> None:
        """Say that a task has become ready."""
        self._back(kind, -priority, task_id)
        for look in self._looks:
            look.note(kind, -priority, task_id)

    def changed(self, kind: str, priority: int) -> None:
        """Say that a ready task has changed, and may have come to this priority from another.

        A claim that saw it there and locked it here has taken it out of its turn: its place says nothing of the ids
        before it.
        """
        self.readied(kind, priority, NO_ID)

    def _back(self, kind: str, rank: int, task_id: UUID) -> None:
        places = self._places.get(kind, {})
        if rank in places and task_id <= places[rank]:
            places[rank] = UUID(int=max(0, task_id.int - 1))


def _ranges(kind: str, places: dict[int, UUID]) -> list[Range]:
    found = []
    rank, after = FIRST, NO_ID
    for next_rank in sorted(places):
        if rank < next_rank:
            found.append(Range(kind, rank, after, next_rank - 1))
        rank, after = next_rank, places[next_rank]
    return [*found, Range(kind, rank, after, LAST)]
