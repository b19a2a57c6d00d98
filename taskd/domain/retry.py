"""When to try again: exponential backoff with full jitter.

Before the attempt after the n-th failure a task waits a time drawn evenly from 0 to `first * factor**(n-1)`
seconds, at most `cap`. Full jitter (and not "half of it plus jitter") because a burst of tasks that failed together
should come back as thinly spread as can be:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


class Retry(Exception):
    """Raised by a handler that wants another attempt.

    Args:
        after: seconds to wait; None leaves it to the kind's `RetryPolicy`.
        reason: goes to the task's `error.message`.

    The attempt counts: when it was the last one allowed, the task fails.
    """

    def __init__(self, reason: str = "the handler asked for a retry", *, after: float | None = None) -> None:
        if after is not None and not 0 <= after <= 31_536_000:
            raise ValueError("after must be between 0 and 31536000 seconds")
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts, in seconds.

    Args:
        first: upper end of the wait after the first failure, default 1.
        factor: growth with each further failure, default 2.
        cap: the longest wait, default 3600.
    """

    first: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.factor >= 1 and self.cap >= self.first):
            raise ValueError("a retry policy needs first > 0, factor >= 1 and cap >= first")

    def ceiling(self, attempt: int) -> float:
        """Return the longest wait after `attempt` (1 or more) has failed."""
        try:
            return min(self.cap, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            return self.cap

    def delay(self, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Return the wait after `attempt` has failed, drawn with `uniform(low, high)`."""
        return uniform(0.0, self.ceiling(attempt))
