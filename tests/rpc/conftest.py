"""A server that leaves the work to others, and a worker's stream to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskd import Taskd
from tests.rpc.working import Stream, working
from tests.running import embedded


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Taskd]:
    """A server without handlers: all work is done elsewhere."""
    async with embedded(database_url, role="api", grpc="127.0.0.1:0", shutdown_seconds=30) as server:
        assert server.app is not None
        yield server.app


@pytest.fixture
async def stream(app: Taskd) -> AsyncIterator[Stream]:
    async with working(app) as found:
        yield found
