"""A hub behind a real socket, and a log in memory for it to follow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from taskd.domain.cursor import LogCursor, decode_log_cursor, encode_log_cursor
from taskd.domain.event import LOG_START, Event, EventKey, EventType
from taskd.domain.model import Role, Status, Task, User
from taskd.errors import TaskdError, Unauthenticated
from taskd.http1.head import Head, parse_head
from taskd.http1.limits import Limits
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Listener, Resume
from taskd.ws.hub import Hub
from tests.gates import trusting

AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
EPOCH = b"8 bytes!"

# Without a bound on its queue a client can be closed in the middle of what it gets.
BARE: dict[str, Any] = {"ping_interval": None, "max_size": None, "compression": None, "max_queue": None}


def make_task(owner: str = "ann", kind: str = "default", *, number: int = 1, **values: Any) -> Task:
    """Return a task; `number` is in its id."""
    given: dict[str, Any] = {
        "id": UUID(int=number), "owner": owner, "kind": kind, "title": "Täsk", "description": "",
        "payload_json": "{}", "status": Status.NEW, "priority": 0, "run_at": AT, "attempt": 0, "max_attempts": 5,
        "timeout_seconds": 300.0, "progress": None, "progress_note": None, "result_json": None, "error": None,
        "version": 1, "created_at": AT, "updated_at": AT, "started_at": None, "finished_at": None,
        "cancel_requested_at": None,
    }  # fmt: skip
    return Task(**given | values)


class Log:
    """The port `Feed`, over a list. `hand_on` False writes without telling, as a log does that is ahead of its feed."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.position = LOG_START
        self.listeners: list[Listener] = []
        self.errors: list[TaskdError] = []
        self.floor = LOG_START
        self.reads = 0
        self.before_read: Callable[[], None] = lambda: None
        self.stuck: asyncio.Event | None = None

    def write(self, *tasks: Task, type_: EventType = EventType.UPDATED, hand_on: bool = True) -> list[Event]:
        first = len(self.events) + 1
        new = [Event(EventKey(7, first + n), type_, task, AT) for n, task in enumerate(tasks)]
        self.events += new
        if hand_on:
            self.hand_on()
        return new

    def hand_on(self) -> None:
        new = self.events[self.position.seq :]
        if new:
            self.position = new[-1].key
            for listener in tuple(self.listeners):
                listener(new)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def read(self, after: EventKey, limit: int, until: EventKey = LOG_START) -> Sequence[Event]:
        self.reads += 1
        self.before_read()
        if self.stuck is not None:
            await self.stuck.wait()
        await asyncio.sleep(0)
        self._fail()
        found = self.events[after.seq : after.seq + limit]
        await asyncio.sleep(0)
        return found

    def age(self, at: datetime) -> float:
        return 0.25

    def cursor(self, key: EventKey) -> str:
        return encode_log_cursor(LogCursor(EPOCH, key))

    async def resume(self, text: str) -> Resume:
        await asyncio.sleep(0)
        self._fail()
        cursor = decode_log_cursor(text)
        if cursor.epoch == EPOCH and cursor.key >= self.floor:
            return Resume(cursor.key, recovered=True)
        return Resume(self.position, recovered=False)

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


class Door(asyncio.Protocol):
    """Reads a head and hands the transport over, as the HTTP connection does."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, end, tail = self.read.partition(b"\r\n\r\n")
        if end:
            self.looking = asyncio.ensure_future(self.upgrade(parse_head(head + end, Limits()), tail))

    async def upgrade(self, head: Head, tail: bytes) -> None:
        self.hub.upgrade(await self.hub.admit(head, "127.0.0.1"), tail, self.transport)


async def admit(head: Head, query: Sequence[tuple[str, str]], peer: str) -> User:
    """The user named in the query; `root` sees all, `nobody` is refused."""
    name = dict(query).get("user", "ann")
    if name == "nobody":
        raise Unauthenticated("who are you")
    return User(name, Role.ADMIN if name == "root" else Role.USER)


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Serving:
    """The hub, its log, and where it listens."""

    hub: Hub
    log: Log
    clock: Clock
    port: int
    supervisor: Supervisor
    pauses: list[float] = field(default_factory=list)

    def socket(self, user: str = "ann", *, options: dict[str, Any] | None = None, **query: str) -> connect:
        """Return a WebSocket client to be entered or awaited."""
        url = f"ws://127.0.0.1:{self.port}/ws?{urlencode({'user': user, **query})}"
        return connect(url, **BARE | (options or {}))

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a plain connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def advance(self, seconds: float) -> None:
        """Let time pass, second by second as the timer would see it."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.hub.tick()

    def cursor(self, seq: int) -> str:
        """Return the cursor behind the log's event number `seq`."""
        return self.log.cursor(EventKey(7, seq) if seq else LOG_START)


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Serving]:
    """Run a hub behind a socket."""
    log, clock, supervisor = Log(), Clock(), Supervisor()
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    hub = Hub(log, admit, trusting().hold, supervisor, clock=clock, pause=pause, **options)
    hub.start()
    server = await asyncio.get_running_loop().create_server(lambda: Door(hub), "127.0.0.1", 0)
    try:
        yield Serving(hub, log, clock, server.sockets[0].getsockname()[1], supervisor, pauses)
    finally:
        await hub.stop(within=1)
        assert (hub.connections, hub.sockets) == (0, 0)
        await supervisor.stop()
        server.close()
        await server.wait_closed()


async def receive(socket: ClientConnection, within: float = 20) -> dict[str, Any]:
    """Return the next message."""
    async with asyncio.timeout(within):
        message = await socket.recv()
    assert isinstance(message, str)
    value: dict[str, Any] = json.loads(message)
    return value


async def closed(socket: ClientConnection, within: float = 20) -> tuple[int | None, str | None]:
    """Read until the end; return the close code and reason that the server sent."""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
        await socket.wait_closed()
    return socket.close_code, socket.close_reason
