"""One stream of `WorkerService.Work`, from `Hello` until it ends, for whatever reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from taskd.client.calls import Metadata, failure_of
from taskd.client.session import Session
from taskd.errors import TaskdError, Unavailable
from taskd.runtime.supervisor import Supervisor
from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import WorkerServiceStub

Connect = Callable[[], grpc.aio.Channel]

WELCOME_WITHIN = 5.0
"""Seconds in which a server answers to `Hello`, at the least."""


class Stream:
    """Carries a session's messages, over a connection of its own. Call `run` once.

    Another stream over the connection of one that fell silent would be as silent: for the channel it works, until the
    time of its keepalive is over.

    Args:
        connect: opens a channel.
        metadata: says who works.
        session: says what to send.
        receive: given each message.
        supervisor: owns the reader and the writer.
    """

    def __init__(
        self,
        connect: Connect,
        metadata: Metadata,
        session: Session,
        receive: Callable[[pb.WorkResponse], None],
        supervisor: Supervisor,
    ) -> None:
        self._channel = connect()
        self._call = WorkerServiceStub(self._channel).Work(metadata=metadata)
        self._session = session
        self._receive = receive
        self._supervisor = supervisor
        self._given_up = asyncio.Event()

    @property
    def is_given_up(self) -> bool:
        """Whether it ended, or ends, because of `give_up`."""
        return self._given_up.is_set()

    def give_up(self) -> None:
        """End it, so that another can take its place."""
        self._given_up.set()

    async def run(self, hello: pb.WorkRequest) -> TaskdError | None:
        """Carry messages until the stream ends; return what it ended with, None when it is closed or given up."""
        reader = self._supervisor.spawn(self._read(), "work reader")
        writer = self._supervisor.spawn(self._write(hello), "work writer")
        given_up = self._supervisor.spawn(self._given_up.wait(), "work given up")
        parts = (reader, writer, given_up)
        try:
            # The writer's end says nothing: it has closed its half, or the reader knows more.
            await asyncio.wait({reader, given_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            self._call.cancel()
            await asyncio.wait(parts)
            self._session.broke()
            await self._channel.close()
        return reader.result() if not reader.cancelled() else None

    async def _read(self) -> TaskdError | None:
        within = max(WELCOME_WITHIN, self._session.lease / 2)
        try:
            while True:
                async with asyncio.timeout(within):
                    message = await self._call.read()
                if not isinstance(message, pb.WorkResponse):
                    return None
                self._session.hear()
                self._receive(message)
                # A server says something every third of the lease: it is silent when that was missed.
                within = self._session.lease / 2
        except TimeoutError:
            return Unavailable(f"the server says nothing for {within:g} s")
        except grpc.aio.AioRpcError as error:
            return failure_of(error)

    async def _write(self, hello: pb.WorkRequest) -> None:
        session = self._session
        try:
            await self._call.write(hello)
            while not session.closing:
                session.woken.clear()
                message = session.next() if session.open else None
                if message is not None:
                    await self._call.write(message)
                    session.wrote()
                elif session.finished:
                    break
                else:
                    await session.woken.wait()
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream has ended: the reader tells why
