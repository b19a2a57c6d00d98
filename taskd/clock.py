"""The process clock: it measures, and dates nothing.

What is stored carries the database's time. Code that waits or measures takes a `Clock`, so that a test can
hand in one that it moves by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns monotonic seconds; only differences mean anything."""

monotonic: Clock = time.monotonic
