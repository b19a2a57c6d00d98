"""Where a connection is handed on to another protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from taskd.http1.head import Head

Upgrade = Callable[[bytes, asyncio.Transport], asyncio.Protocol]
"""Takes over the transport, with what came behind the head."""


class Upgrader(Protocol):
    """Speaks another protocol on connections that ask for it."""

    def wants(self, head: Head) -> bool:
        """Return whether it takes a request for an upgrade to WebSocket; if not, it is answered as any other."""

    async def admit(self, head: Head, peer: str) -> Upgrade:
        """Decide what becomes of a request, welcome or refused, and return what does it."""
