"""Deadlines that are all equally far away: a queue, and no timer each."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Items in the order in which their time comes.

    Since the delay is the same for all, the order of insertion is the order of the deadlines: nothing is sorted, and
    looking for what is due costs as much as there is due.

    Args:
        delay: seconds from `start` to the deadline.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._due: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: T) -> bool:
        return item in self._due

    def start(self, item: T, now: float) -> None:
        """Let the time of `item` run from `now` on, anew if it ran already."""
        self._due.pop(item, None)
        self._due[item] = now + self._delay

    def drop(self, item: T) -> None:
        """Forget `item`, if it is known."""
        self._due.pop(item, None)

    def pop_due(self, now: float) -> list[T]:
        """Remove and return those whose time has come, the earliest first."""
        due = []
        for item, at in self._due.items():
            if at > now:
                break
            due.append(item)
        for item in due:
            del self._due[item]
        return due

    def pop_first(self) -> T:
        """Remove and return the one whose time comes first; there must be one."""
        item = next(iter(self._due))
        del self._due[item]
        return item
