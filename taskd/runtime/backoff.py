"""Growing pauses between attempts at something that is away."""

from __future__ import annotations

import random as chance
from collections.abc import Callable


class Backoff:
    """Gives ever longer pauses, each with jitter so that many processes do not come back at one moment.

    A pause is drawn from the upper half of its step: never so short that it hammers, never all alike.

    Args:
        first: seconds of the first step.
        cap: seconds of the longest step.
        factor: how much longer each step is than the one before.
        random: draws from [0, 1).
    """

    def __init__(
        self, first: float, cap: float, factor: float = 2, *, random: Callable[[], float] = chance.random
    ) -> None:
        if not 0 <= first <= cap or factor < 1:
            raise ValueError("wants 0 <= first <= cap and factor >= 1")
        self._first = first
        self._cap = cap
        self._factor = factor
        self._random = random
        self._step = first

    def next(self) -> float:
        """Return the seconds to wait now."""
        step = self._step
        self._step = min(self._cap, step * self._factor)
        return step * (1 + self._random()) / 2

    def reset(self) -> None:
        """Begin again with the first step: it worked."""
        self._step = self._first
