"""A server with gRPC, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskd import Taskd
from taskd.client import Client
from tests.running import embedded


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[Taskd]:
    """A server without workers of its own: what is created waits."""
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        yield server.app


@pytest.fixture
async def ann(app: Taskd) -> AsyncIterator[Client]:
    assert app.grpc_address is not None
    async with Client(app.grpc_address, user="ann") as client:
        yield client
