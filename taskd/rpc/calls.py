"""What every call passes through: who calls, its request id, its errors as statuses, its time, a line in the log.

A service is an object with one coroutine for each of its methods in the proto, named as Python names things: `get_task`
is `GetTask`. It is given the user and the request, and returns the answer; one with a stream of answers is given a
`Send` as well, one with a stream of requests an async iterator in place of the request. So handlers know nothing of
gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from taskd import log
from taskd.clock import Clock, monotonic
from taskd.domain.access import Access
from taskd.domain.model import User
from taskd.errors import Malformed, TaskdError, TooLarge, Unauthenticated, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.rpc.channel import MAX_ANSWER
from taskd.rpc.hot import HotAnswers, Said, Shown
from taskd.rpc.identity import RULES, Metadata, bytes_of, caller_of
from taskd.rpc.peers import Peers, TooMuchUnread
from taskd.rpc.status import INSIDE, TRAILER, Code, code_of, status_of
from taskd.service.auth import Gate

logger = logging.getLogger("taskd.grpc")

Answer: TypeAlias = Message | bytes | Shown
"""Bytes are an answer that was encoded before; what shows a view of the cache may be given again."""

Send: TypeAlias = Callable[[Answer], Awaitable[None]]
"""Sends one answer of a stream, and waits while the caller does not read."""

Read: TypeAlias = Callable[[bytes], Message]
Work: TypeAlias = "Callable[[User, Said, Context], Awaitable[bytes]]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

MOST_OPEN = 1000
"""Calls with one answer that are worked on at once. Streams are not among them: they stay, and cost little."""

PAGES = frozenset(("ListTasks", "SearchTasks", "ListTaskEvents", "ListEvents"))
MOST_PAGES = 16
"""Calls of those whose answers may be large that are worked on at once: more than read the database at once. Who does
not take what it has is refused when its turn comes, before anything is made for it."""

REFLECTION = "ServerReflection/ServerReflectionInfo"
"""Its method in metrics and log, of both versions."""

OTHER = "other"
"""The method, in metrics and log, of calls of what does not exist."""

NO_RETRY = ("grpc-retry-pushback-ms", "-1")
"""Trailer: a channel that tries again by itself is not to (gRFC A6): the answer says when it may go well."""


class Calls:
    """Makes handlers of services.

    Args:
        gate: lets callers in.
        catalog: where calls are counted.
        peers: the connections.
        hot: answers that are given again.
        most_open: see `MOST_OPEN`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        gate: Gate,
        catalog: Catalog,
        peers: Peers,
        hot: HotAnswers,
        *,
        most_open: int = MOST_OPEN,
        clock: Clock = monotonic,
    ) -> None:
        self._gate = gate
        self._catalog = catalog
        self._peers = peers
        self._hot = hot
        self._most_open = most_open
        self._clock = clock
        self._pages = asyncio.Semaphore(MOST_PAGES)
        self._open_pages = 0
        self._begun = 0
        self._open = 0
        """Of those that have begun, the ones whose callers were let in."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self, seconds: float) -> None:
        """Wait up to `seconds` until no call with one answer is open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def handlers(self, service: ServiceDescriptor, implementation: object) -> dict[str, Handler]:
        """Return the handlers of a service's methods by their names.

        Raises:
            AttributeError: the implementation lacks one.
            KeyError: nobody has said whom a method is for.
        """
        return {
            method.name: self._handler(method, getattr(implementation, _snake(method)))
            for method in service.methods
        }

    def others(self) -> grpc.GenericRpcHandler:
        """Return the handler of all that no other handles, to be asked last: it refuses, and counts."""

        async def refuse(requests: object, context: Context) -> None:
            self._catalog.grpc_requests.labels(OTHER, Code.UNIMPLEMENTED.name).inc()
            await context.abort(Code.UNIMPLEMENTED, "there is no such method here")

        return _Always(grpc.stream_stream_rpc_method_handler(refuse))

    def reflection(self, call: Callable[..., AsyncIterator[Any]], name: str) -> Callable[..., Awaitable[None]]:
        """Return a stream that grpc itself answers, for who is let in."""

        async def answer(requests: AsyncIterator[Message], context: Context) -> None:
            async def relay(user: User) -> None:
                async for response in call(requests, context):
                    await context.write(response)

            await self._stream(REFLECTION, RULES[name], context, relay)

        return answer

    def _handler(self, method: MethodDescriptor, call: Callable[..., Any]) -> Handler:
        name = f"{method.containing_service.name}/{method.name}"
        access = RULES[f"{method.containing_service.full_name}/{method.name}"]
        self._catalog.grpc_requests.expect(name, Code.OK.name)
        read = _reader(method)
        # A single request is read in the call: gRPC takes an error of its reader for a bug.
        if not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(name, access, read, call))
        if not method.client_streaming:
            return grpc.unary_stream_rpc_method_handler(self._answers(name, access, read, call), None, _encoded)
        return grpc.stream_stream_rpc_method_handler(self._both(name, access, call), read, _encoded)

    def _unary(
        self, name: str, access: Access, read: Read, call: Callable[..., Awaitable[Answer]]
    ) -> Callable[..., Awaitable[Any]]:
        seconds = self._catalog.grpc_seconds.labels(name)
        run = self._limited(name, self._work(read, call))

        async def answer(request: bytes, context: Context) -> bytes:
            begun = self._clock()
            said: Said = (name, request, context.invocation_metadata())  # type: ignore[assignment]
            if (again := self._again(said, context)) is not None:
                await context.send_initial_metadata((("x-request-id", log.new_request_id()),))
                self._catalog.grpc_requests.labels(name, Code.OK.name).inc()
                seconds.observe(self._clock() - begun)
                return again
            self._begun += 1
            self._idle.clear()
            try:
                body: bytes | None = await self._run(name, access, context, lambda user: run(user, said, context))
                if body is None:
                    # Until the connection has taken what it is refused with.
                    self._hold(0, context)
                    return b""
                return body
            finally:
                seconds.observe(self._clock() - begun)
                self._begun -= 1
                if not self._begun:
                    self._idle.set()

        return answer

    def _again(self, said: Said, context: Context) -> bytes | None:
        """Return what a call that said the same was answered with, if it is what this one would be answered with."""
        try:
            self._peers.check(context.peer())
            body = self._hot.find(said)
            if body is not None:
                self._hold(len(body), context)
        except TooMuchUnread:
            # It is refused as all are.
            return None
        return body

    def _work(self, read: Read, call: Callable[..., Awaitable[Answer]]) -> Work:
        async def work(user: User, said: Said, context: Context) -> bytes:
            self._peers.check(context.peer())
            answer = await call(user, read(said[1]))
            body = _encoded(answer)
            if isinstance(answer, Shown):
                self._hot.keep(said, user, answer)
            if len(body) > MAX_ANSWER:
                raise TooLarge(f"the answer has {len(body)} bytes, more than {MAX_ANSWER}: ask for a smaller `limit`")
            # No await from here to where gRPC has it.
            self._hold(len(body), context)
            return body

        return work

    def _limited(self, name: str, work: Work) -> Work:
        """Bound what is worked on at once. Only who was let in counts: else others could keep them out."""
        is_page = name.rpartition("/")[2] in PAGES

        async def limited(user: User, said: Said, context: Context) -> bytes:
            if self._open >= self._most_open:
                raise Unavailable(f"more than {self._most_open} calls at once")
            self._open += 1
            try:
                return await (page if is_page else work)(user, said, context)
            finally:
                self._open -= 1

        async def page(user: User, said: Said, context: Context) -> bytes:
            # Others have the rest.
            if self._open_pages > self._most_open // 2:
                raise Unavailable(f"more than {self._most_open // 2} calls for pages at once")
            self._open_pages += 1
            try:
                async with self._pages:
                    return await work(user, said, context)
            finally:
                self._open_pages -= 1

        return limited

    def _hold(self, size: int, context: Context) -> None:
        """Count an answer until its caller has taken it: one that gives gRPC no window can make it wait for good."""
        taken = self._peers.hold(context.peer(), size)
        # Its type stub wants another argument than the context that it is called with.
        context.add_done_callback(lambda _: taken())  # type: ignore[arg-type]

    def _answers(
        self, name: str, access: Access, read: Read, call: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        async def answer(request: bytes, context: Context) -> None:
            await self._stream(name, access, context, lambda user: call(user, read(request), context.write))

        return answer

    def _both(
        self, name: str, access: Access, call: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        async def answer(requests: AsyncIterator[Message], context: Context) -> None:
            await self._stream(name, access, context, lambda user: call(user, requests, context.write))

        return answer

    async def _stream(
        self, name: str, access: Access, context: Context, call: Callable[[User], Awaitable[None]]
    ) -> None:
        async def run(user: User) -> None:
            with self._peers.stream(context.peer()):
                await self._held(user, call(user))

        await self._run(name, access, context, run)
        # Its status waits behind what it was sent: a caller that does not read takes neither.
        self._hold(0, context)

    async def _held(self, user: User, stream: Awaitable[None]) -> None:
        """Serve a stream for as long as its caller's token is good.

        Raises:
            Unauthenticated: it is so no longer.
        """
        serving = asyncio.current_task()
        assert serving is not None
        revoked = False

        def end() -> None:
            nonlocal revoked
            revoked = True
            serving.cancel()

        release = self._gate.hold(user, end)
        try:
            await stream
        except asyncio.CancelledError:
            if not revoked:
                raise
            raise Unauthenticated("the token was revoked, or has expired") from None
        finally:
            release()

    async def _admit(self, metadata: Metadata, context: Context, access: Access) -> User:
        user = await self._gate.identify(caller_of(metadata, context.peer(), self._gate))
        self._gate.allow(user, access)
        return user

    async def _run(
        self, name: str, access: Access, context: Context, call: Callable[[User], Awaitable[Any]]
    ) -> Any:
        begun = self._clock()
        metadata = _metadata(context)
        request_id = log.request_id_of(bytes_of(metadata, "x-request-id"))
        token = log.request_id.set(request_id)
        code, user = Code.OK, None
        try:
            await context.send_initial_metadata((("x-request-id", request_id),))
            user = await self._admit(metadata, context, access)
            return await call(user)
        except asyncio.CancelledError:
            code = _why_cancelled(context)
            raise
        except grpc.aio.BaseError:
            # What was being sent has nobody to go to, and gRPC is about to say so.
            code = Code.CANCELLED
            raise asyncio.CancelledError from None
        except Exception as error:
            code = await self._refuse(name, context, error)
        finally:
            self._catalog.grpc_requests.labels(name, code.name).inc()
            if logger.isEnabledFor(logging.INFO):
                facts = self._facts(metadata, code, user, self._clock() - begun)
                logger.info("%s %s", name, code.name, extra=facts)
            log.request_id.reset(token)
        return None

    async def _refuse(self, name: str, context: Context, error: Exception) -> Code:
        """End the call with what an error stands for, and return its code."""
        known = error if isinstance(error, TaskdError) else TaskdError(INSIDE)
        status = status_of(known)
        code = code_of(known)
        if code is Code.INTERNAL:
            logger.error("%s failed", name, exc_info=error)
        trailers: list[tuple[str, str | bytes]] = [(TRAILER, status.SerializeToString())]
        if isinstance(known, Unavailable):
            trailers.append(NO_RETRY)
        context.set_trailing_metadata(tuple(trailers))
        context.set_code(code)
        context.set_details(status.message)
        return code

    @staticmethod
    def _facts(metadata: Metadata, code: Code, user: User | None, seconds: float) -> dict[str, object]:
        given = metadata.get("traceparent")
        facts: dict[str, object] = {
            "code": code.name,
            "user": None if user is None else user.name,
            "milliseconds": round(seconds * 1000, 2),
            "traceparent": log.traceparent_of(given if isinstance(given, str) else None),
        }
        return log.fields(**{name: fact for name, fact in facts.items() if fact is not None})


def _metadata(context: Context) -> Metadata:
    return {str(key): value for key, value in context.invocation_metadata() or ()}


def _why_cancelled(context: Context) -> Code:
    left = context.time_remaining()
    return Code.DEADLINE_EXCEEDED if left is not None and left <= 0 else Code.CANCELLED


def _encoded(answer: Answer) -> bytes:
    if isinstance(answer, Shown):
        return answer.body
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _reader(method: MethodDescriptor) -> Read:
    parse = message_factory.GetMessageClass(method.input_type).FromString

    def read(request: bytes) -> Message:
        try:
            return parse(request)
        except DecodeError:
            raise Malformed(f"this is no {method.input_type.name}") from None

    return read


class _Always(grpc.GenericRpcHandler):
    """One handler for everything."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def service(self, call: grpc.HandlerCallDetails) -> Handler:
        return self._handler


def _snake(method: MethodDescriptor) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
