"""What a process is told when it renews its lease."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID


class Renewal(NamedTuple):
    """The answer to one renewal.

    `alive` False: the lease is gone and its tasks were taken back; register a new one. `others` counts the other
    processes that are registered. `cancelled` lists the task and attempt of each running task under this lease whose
    cancellation was asked for. `overdue`: one of the others, or of those that are gone, has not renewed in time.
    """

    alive: bool
    others: int
    cancelled: tuple[tuple[UUID, int], ...]
    overdue: bool = False
