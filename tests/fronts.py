"""One taskd as its clients may meet it: the process over the database itself, or a gateway before that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskd import Taskd
from tests.running import Server, embedded
from tests.waiting import eventually

FRONTS = ("local", "gateway")

both = pytest.mark.parametrize("front", FRONTS)
"""Gives a test `front`, to be handed to `served_by`."""


@contextlib.asynccontextmanager
async def gateway(upstream: str | None, *, ready: bool = True, **settings: Any) -> AsyncIterator[Server]:
    """Run a gateway in this loop; `ready`: wait until it is."""
    settings = {"auth": "none", "http": "127.0.0.1:0", "cache": "off"} | settings
    async with Taskd(role="gateway", upstream=upstream, **settings) as app:
        assert app.http_address is not None
        server = Server(app.http_address, app)
        if ready:
            await eventually(server.ready)
        yield server


@contextlib.asynccontextmanager
async def served_by(
    front: str, database_url: str, app: Taskd | None = None, *, cache: str = "off", **settings: Any
) -> AsyncIterator[Server]:
    """Run a Taskd in this loop, and a gateway before it if `front` says so; `cache` is for both.

    An `app` that is handed in must serve gRPC.
    """
    settings = {"grpc": "127.0.0.1:0", "cache": cache} | settings
    async with embedded(database_url, app, **settings) as server:
        if front == "local":
            yield server
            return
        assert server.app is not None
        async with gateway(server.app.grpc_address, cache=cache) as before:
            yield before
