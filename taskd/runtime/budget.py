"""Memory that many hold and none may be asked to give back: bounded in sum, and the oldest gives way.

A bound on each is not enough where there may be ten thousand; a share for each would be too little to be of use. So
there is one bound on the sum, and when it is passed, those go who have held something for longest: whoever is served
in time holds it for a moment.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Budget(Generic[T]):
    """Who holds how many bytes, the one that has held some for longest first.

    Args:
        most: bytes of all together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[T, int] = {}
        self.held = 0
        """Bytes of all together."""

    def __len__(self) -> int:
        return len(self._sizes)

    def hold(self, item: T, size: int) -> list[T]:
        """Take note that `item` holds `size` bytes now; with 0, it begins anew with the next.

        Returns:
            Those who have to give way, which are forgotten here; `item` may be among them. Who is alone never has to.
        """
        if not size:
            self.held -= self._sizes.pop(item, 0)
            return []
        self.held += size - self._sizes.get(item, 0)
        self._sizes[item] = size
        surplus = []
        while self.held > self._most and len(self._sizes) > 1:
            oldest = next(iter(self._sizes))
            self.held -= self._sizes.pop(oldest)
            surplus.append(oldest)
        return surplus

    def oldest(self) -> T | None:
        """Return the one that has held some for longest."""
        return next(iter(self._sizes), None)
