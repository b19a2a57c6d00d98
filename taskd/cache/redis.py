"""The cache in Redis or Valkey, shared by processes. Wants Redis 5 or newer.

    taskd:1:<namespace>:all                  the generation of everything: 16 random bytes
    taskd:1:<namespace>:gen:<scope>          the generation of a scope: 16 random bytes
    taskd:1:<namespace>:val:<cache>:…        an entry: both generations, when it was asked for, the value

An entry counts only while both generations that stand in it are those that stand in their keys, which a look reads at
one moment. To end a scope is to delete its generation: who asks next makes a new one that never was before. So a load
that began before an end counts for nothing after it, whichever process ended the scope and however late the entry
arrives; and it does no harm when Redis loses keys, by their time, for want of memory or by a flush: a miss.

An entry's age is counted by Redis' clock from the `get` that gave the ticket, and looked at with each read: the time
after which Redis drops it only saves memory. A put that lay in a stopped server's socket is as old as it is.

Puts and ends return at once, and go through an outbox. Until the end of a scope is confirmed, whoever asks this
process for it gets a miss and no ticket, so a read after an answered write never sees what was before it.

Redis is away when it refuses, fails, or does not answer within `TIMEOUT`. Then nothing asks it but one duty, which
comes back to it in growing pauses. The pauses grow also over short recoveries, so that a server that is always about to
fail costs few requests their time. What has ended meanwhile waits in the outbox. A server that is another than before,
or was started anew, may be back at an older state: everything in it is ended first. So it is when a process starts: the
one before may have died with something in its outbox.

Considered and refused: subscribing to invalidations of the server (a second way of news beside the log, and one that
loses messages), a lock per load across processes (a lost one delays every reader; two loads do no harm), and a script
that looks at the generations before it stores (all that it saves is that a late entry of an ended generation may stand
in the place of a good one, until the next look).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from taskd.cache.outbox import Offer, Outbox, Parcel
from taskd.cache.port import Found, Key, Ticket
from taskd.cache.server import AWAY, Server
from taskd.clock import Clock, monotonic
from taskd.errors import Unavailable
from taskd.runtime.backoff import Backoff
from taskd.runtime.batcher import Batcher
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor

V = TypeVar("V")

TIMEOUT = 0.05
"""Seconds for an answer. The database gives one sooner than a cache that takes longer."""

LOOK_AGAIN = 5.0
"""Seconds after which the duty asks whether Redis is there although there is nothing to send."""

STEADY = 30.0
"""Seconds that Redis must work for its next outage to be a new one, with short pauses again."""

LARGEST = 256 * 1024
"""Bytes of a value that is kept; a larger one is loaded each time. See `LOOKS`."""

LOOKS = 64
"""Looks in one round trip: 16 MiB at the most, and the client takes in about 400 MB/s, so all of it is in time."""

WAITING_LOOKS = 1_000
"""Looks that may wait; further ones are misses."""

_ROOT = "taskd:1:"
_GENERATION = 16
_HEADER = 2 * _GENERATION + 8


class _Seen(NamedTuple):
    """What a look found: the generations and Redis' time to make a ticket of, and an entry's value if it counts."""

    header: bytes | None
    payload: bytes | None = None


class _Pauses(Backoff):
    """Begins again with short pauses only after things have gone well for a while."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(0.1, 2.0)
        self._clock = clock
        self._since: float | None = None

    def next(self) -> float:
        """Return the seconds to wait now."""
        if self._since is not None and self._clock() - self._since >= STEADY:
            super().reset()
        self._since = None
        return super().next()

    def reset(self) -> None:
        """Take note that it works."""
        if self._since is None:
            self._since = self._clock()


class RedisCache(Generic[V]):
    """Keeps values in Redis; implements `port.Cache`. How many it keeps, and which leave, is not known here.

    Args:
        url: of the server, as redis-py takes it (`redis://`, `rediss://`, `unix://`).
        supervisor: owns the duty that sends the outbox and looks after the connection.
        ttl: seconds that an entry counts, from the `get` before its load.
        namespace: names whose values these are; asked at each use, and while it is empty nothing is cached. When it
            changes, everything in the new one is ended first.
        pack: returns a value as bytes.
        unpack: returns the value; whatever it raises makes a miss.
        clock: gives the time.
        timeout: seconds for an answer.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        supervisor: Supervisor,
        *,
        ttl: float,
        namespace: Callable[[], str],
        pack: Callable[[V], bytes],
        unpack: Callable[[bytes], V],
        clock: Clock = monotonic,
        timeout: float = TIMEOUT,
    ) -> None:
        self.evictions: Mapping[tuple[str, str], int] = {}
        self._ttl = ttl
        self._namespace = namespace
        self._pack = pack
        self._unpack = unpack
        self._clock = clock
        self._space = ""
        self._up = False
        self._failed: str | None = None
        # The run of the server that the outbox has been emptied to.
        self._run: str | None = None
        self._outbox = Outbox()
        self._server = Server(url, timeout)
        self._looks = self._new_looks()
        self._duty = Periodic("cache", self.run_once, supervisor, _Pauses(clock))

    @property
    def entries(self) -> None:
        """None: others keep and drop entries too."""
        return

    @property
    def fault(self) -> str | None:
        """Why Redis can't be used now, or None."""
        return None if self._up else self._failed or self._duty.fault

    async def start(self) -> None:
        """Begin to look for Redis. Neither waits for it nor minds that it is away."""
        self._looks = self._new_looks()
        self._duty.start()

    async def stop(self) -> None:
        """Send what is left, if Redis takes it, and close the connections. Safe twice, and before `start`."""
        await self._duty.stop()
        with contextlib.suppress(Unavailable):
            while self._up and self._outbox:
                await self._deliver()
        self._up = False
        await self._looks.close()
        await self._server.disconnect()

    async def get(self, key: Key) -> Found[V]:
        """Return what is kept under the key, if its scope's generation has not ended since."""
        if not self._usable(key.scope):
            return Found(None)
        at = self._clock()
        try:
            seen = await self._looks.submit(key)
        except Unavailable:
            return Found(None)
        # It may have ended while the look was on its way, and then neither value nor ticket is worth anything.
        if seen.header is None or not self._usable(key.scope):
            return Found(None)
        ticket = Ticket(seen.header, at)
        if seen.payload is None:
            return Found(None, ticket)
        try:
            return Found(self._unpack(seen.payload))
        except Exception:
            # Anybody may write to Redis; what can't be read is loaded anew, and put in its place.
            return Found(None, ticket)

    def put(self, key: Key, ticket: Ticket, value: V) -> None:
        """Keep a value that was loaded after the `get` that gave the ticket, unless the scope has ended meanwhile."""
        if not self._usable(key.scope):
            return
        payload = self._pack(value)
        if len(payload) <= LARGEST and self._outbox.offer(Offer(key, ticket, payload)):
            self._duty.wake()

    def invalidate(self, scopes: Iterable[str]) -> None:
        """End the generations of these scopes."""
        self._outbox.end(scopes)
        self._duty.wake()

    def clear(self) -> None:
        """End all generations."""
        self._outbox.end_all()
        self._duty.wake()

    async def run_once(self) -> float:
        """Send a part of the outbox, or see whether Redis is there; return the seconds until it wants to again.

        Raises:
            Unavailable: Redis is away.
        """
        if self._failed is not None:
            # At least one pause before Redis is asked again: what has just failed would fail again.
            reason, self._failed = self._failed, None
            raise Unavailable(reason)
        if not self._up:
            await self._prove()
        await self._deliver()
        self._up = self._failed is None
        return 0.0 if self._outbox else LOOK_AGAIN

    def _new_looks(self) -> Batcher[Key, _Seen]:
        # One that is closed takes nothing more, and a cache may be stopped before it is started.
        return Batcher(self._look, limit=LOOKS, waiting=WAITING_LOOKS)

    def _usable(self, scope: str) -> bool:
        return self._up and bool(self._prefix()) and not self._outbox.holds(scope)

    def _prefix(self) -> str:
        """Return what the keys begin with; empty while the namespace is not known."""
        space = self._namespace()
        if space != self._space:
            self._space = space
            self.clear()
        return f"{_ROOT}{space}:" if space else ""

    async def _look(self, keys: list[Key]) -> list[_Seen]:
        prefix = self._prefix()
        if not self._up or not prefix:
            return [_Seen(None)] * len(keys)
        try:
            seen = await self._ask(prefix, list(dict.fromkeys(keys)))
            return [seen[key] for key in keys]
        except AWAY as error:
            if self._up:
                self._up = False
                self._failed = self._server.reason(error)
                self._duty.wake()
            return [_Seen(None)] * len(keys)

    async def _ask(self, prefix: str, keys: list[Key]) -> dict[Key, _Seen]:
        everything = _name(prefix, "all")
        scopes = [_name(prefix, "gen:", key.scope) for key in keys]
        values = [_value_name(prefix, key) for key in keys]
        found, (seconds, microseconds) = await self._server.exchange(
            [("MGET", everything, *scopes, *values), ("TIME",)]
        )
        now = seconds * 1_000_000 + microseconds
        generations = dict(zip((everything, *scopes), found, strict=False))
        missing = [name for name, generation in generations.items() if generation is None]
        if missing:
            generations |= await self._begin(missing)
        seen = {}
        for key, scope, value in zip(keys, scopes, found[len(keys) + 1 :], strict=True):
            both = (generations[everything] or b"") + (generations[scope] or b"")
            usable = len(both) == 2 * _GENERATION
            header = both + now.to_bytes(8, "big") if usable else None
            seen[key] = _Seen(header, self._payload(value, both, now) if usable else None)
        return seen

    def _payload(self, value: bytes | None, generations: bytes, now: int) -> bytes | None:
        if value is None or len(value) < _HEADER or value[: 2 * _GENERATION] != generations:
            return None
        age = now - int.from_bytes(value[2 * _GENERATION : _HEADER], "big")
        # Below zero: Redis' clock was set back, and nobody knows how old it is.
        return value[_HEADER:] if 0 <= age < self._ttl * 1_000_000 else None

    async def _begin(self, names: list[bytes]) -> dict[bytes, bytes | None]:
        """Make generations where there are none, and return those that there are then."""
        lives = self._lives()
        commands = [("SET", name, secrets.token_bytes(_GENERATION), "NX", "PX", lives) for name in names]
        answers = await self._server.exchange([*commands, ("MGET", *names)])
        return dict(zip(names, answers[-1], strict=True))

    def _lives(self) -> int:
        # Milliseconds that a generation lives after its last put: longer than any of its entries.
        return int(2 * self._ttl * 1000) + 1

    async def _deliver(self) -> None:
        """Send one parcel; if there is nothing in it, ask whether Redis is there."""
        prefix = self._prefix()
        parcel = self._outbox.take()
        try:
            # Without a namespace nothing was ever cached, and the first one begins with an end of everything.
            if prefix:
                await self._server.exchange(self._commands(prefix, parcel) or [("PING",)])
        except BaseException as error:
            self._outbox.restore()
            if not isinstance(error, AWAY):
                raise
            self._up = False
            raise Unavailable(self._server.reason(error)) from None
        self._outbox.confirm()

    def _commands(self, prefix: str, parcel: Parcel) -> list[tuple[Any, ...]]:
        everything = _name(prefix, "all")
        ended = [_name(prefix, "gen:", scope) for scope in parcel.ended]
        if parcel.all_ended:
            ended.append(everything)
        commands: list[tuple[Any, ...]] = [("DEL", *ended)] if ended else []
        longer: dict[bytes, None] = {}
        for key, ticket, payload in parcel.offers:
            left = int((ticket.at + self._ttl - self._clock()) * 1000)
            if left > 0:
                commands.append(("SET", _value_name(prefix, key), ticket.generation + payload, "PX", left))
                longer[_name(prefix, "gen:", key.scope)] = longer[everything] = None
        return [*commands, *(("PEXPIRE", name, self._lives()) for name in longer)]

    async def _prove(self) -> None:
        """Connect anew, see that Redis does all that is asked of it, and whether it is the one that it was."""
        try:
            await self._server.connect()
            # A server that can't be written to is away: its generations could not be ended.
            await self._server.exchange([("SET", _name(_ROOT, "probe"), b"", "PX", 1000)])
        except AWAY as error:
            raise Unavailable(self._server.reason(error)) from None
        if self._server.run != self._run:
            self._run = self._server.run
            self._outbox.end_all()


def _name(prefix: str, kind: str, scope: str = "") -> bytes:
    return (prefix + kind + scope).encode("utf-8", "surrogatepass")


def _value_name(prefix: str, key: Key) -> bytes:
    # The length keeps apart what a colon in a scope would make alike.
    return _name(prefix, f"val:{key.cache}:{len(key.scope)}:", f"{key.scope}:{key.name}")
