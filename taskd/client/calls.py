"""A connection to a taskd elsewhere: who calls, until when, and taskd's errors in place of gRPC's."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TypeVar

import grpc

from taskd.clock import Clock, monotonic
from taskd.domain.forms import parse_owner
from taskd.domain.token import authorization_of
from taskd.errors import Fault, Invalid, StartError, TaskdError, Unavailable
from taskd.rpc.channel import open_channel
from taskd.rpc.status import error_of
from taskd.runtime.backoff import Backoff
from taskd.tls import Trust

Q = TypeVar("Q")
A = TypeVar("A")

Method = grpc.aio.UnaryUnaryMultiCallable[Q, A]
Metadata = tuple[tuple[str, str | bytes], ...]

TRIES = 5
"""How often a call that may be repeated is tried, with pauses of 0.1 to 1 s: time for another server to answer."""

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TOKEN = re.compile(r"[!-~]+")


def caller_metadata(user: str | None, token: str | None) -> Metadata:
    """Return the metadata that say who calls.

    Raises:
        Invalid: neither can be sent.
    """
    metadata: list[tuple[str, str | bytes]] = []
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise Invalid([Fault("token", "must be visible ASCII characters")])
        metadata.append(("authorization", authorization_of(token)))
    if user is not None:
        parse_owner(user, "user")
        # Text in metadata is ASCII only; a name that ends in -bin has bytes (gRPC over HTTP/2, Custom-Metadata).
        plain = user.isascii() and user.isprintable() and user == user.strip()
        metadata.append(("x-taskd-user", user) if plain else ("x-taskd-user-bin", user.encode()))
    return tuple(metadata)


def failure_of(error: grpc.aio.AioRpcError) -> TaskdError:
    """Return the error that a call ended with, as taskd's own."""
    return error_of(error.code(), error.details() or "", error.trailing_metadata() or ())


class Connection:
    """A channel, and the calls over it as one caller.

    Args:
        target: `host:port`.
        user: who calls, where the server takes it by their word.
        token: of whoever calls.
        trust: whose servers are believed, by TLS; None: no TLS.
        timeout: seconds that a call may take, with all its tries.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        target: str,
        user: str | None,
        token: str | None,
        timeout: float,
        trust: Trust | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.metadata = caller_metadata(user, token)
        self._target = target
        self._trust = trust
        self._timeout = timeout
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, while it is open.

        Raises:
            StartError: it is not.
        """
        if self._channel is None:
            raise StartError("the client is not open: use it in `async with`")
        return self._channel

    def open(self) -> None:
        """Open the channel; it connects with the first call."""
        if self._channel is None:
            self._channel = open_channel(self._target, trust=self._trust)

    async def close(self) -> None:
        """Close the channel, and end what goes over it. Safe twice, and before `open`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def call(self, method: Method[Q, A], request: Q, request_id: str | None = None) -> A:
        """Make a call, once.

        Raises:
            TaskdError: what it ended with.
        """
        return await self._try(method, request, self._with_id(request_id), self._timeout)

    async def call_again(self, method: Method[Q, A], request: Q, request_id: str | None = None) -> A:
        """Make a call that does no harm twice: it is tried again while nobody answers it.

        Raises:
            TaskdError: what its last try ended with.
        """
        metadata = self._with_id(request_id)
        pauses = Backoff(0.1, 1.0)
        deadline = self._clock() + self._timeout
        for _ in range(TRIES - 1):
            try:
                return await self._try(method, request, metadata, deadline - self._clock())
            except Unavailable:
                pause = pauses.next()
                if self._clock() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
        return await self._try(method, request, metadata, deadline - self._clock())

    async def _try(self, method: Method[Q, A], request: Q, metadata: Metadata, timeout: float) -> A:
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None

    def _with_id(self, request_id: str | None) -> Metadata:
        if request_id is None:
            return self.metadata
        if not _REQUEST_ID.fullmatch(request_id):
            raise Invalid([Fault("request_id", "must be 1 to 128 visible ASCII characters")])
        return (*self.metadata, ("x-request-id", request_id))


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return uuid.uuid4().hex
