"""How long statements take: from their sending to their last row, those that fail included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskd.clock import Clock
from taskd.metrics.catalog import OTHER, Catalog
from taskd.store.statements import Statement


class Timing:
    """Observes statements by name; what has none is `other`."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._seconds = catalog.query_seconds
        self._clock = clock
        self._observe: dict[str, Callable[[float], None]] = {}

    @contextmanager
    def of(self, statement: Statement | str) -> Iterator[None]:
        """Observe what happens inside as one run of the statement."""
        name = OTHER if isinstance(statement, str) else statement.name
        observe = self._observe.get(name)
        if observe is None:
            observe = self._observe[name] = self._seconds.labels(name).observe
        began = self._clock()
        try:
            yield
        finally:
            observe(self._clock() - began)
