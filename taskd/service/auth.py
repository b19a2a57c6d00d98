"""Who calls, what they may do, and how often: what every transport asks before it does anything.

A token is looked up by its SHA-256. What was found is believed for `BELIEVED` seconds, so that a busy caller costs the
database one look in that time; many callers at once share one statement. Streams and sockets stay for longer than that:
whoever has one is looked at again every `LOOK_EVERY` seconds, and ended when the token is gone. Both together are
less than the 5 s that a revoked token is good for at the most, in each process.

During an outage nobody new is believed. Streams stay, for there is nothing that they could be told.

Whoever guesses tokens makes the database look for them, so those of one address that name nobody are limited. That
must not lock out others behind the same address: a token that was good in the last hour is always looked at.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskd import log
from taskd.cache.ttl import TTLCache
from taskd.clock import Clock, monotonic
from taskd.domain.access import Access, require
from taskd.domain.model import Role, User
from taskd.domain.token import MAX_SHOWN, Token, authorization_of, digest_in, digest_of
from taskd.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from taskd.http1.forwarded import Network, client_of
from taskd.metrics.catalog import Catalog
from taskd.runtime.backoff import Backoff
from taskd.runtime.batcher import Batcher
from taskd.runtime.buckets import Allowance, Buckets
from taskd.runtime.service import Periodic
from taskd.runtime.supervisor import Supervisor
from taskd.service.ports import Tokens

logger = logging.getLogger("taskd.auth")

BELIEVED = 2.0
"""Seconds for which a token that was found is not looked up again."""

LOOK_EVERY = 2.0
"""Seconds between looks at the tokens of streams and sockets."""

LOOK_AT_ONCE = 1000
"""Tokens of one look."""

REMEMBERED_FOR = 3600.0
"""Seconds for which a token that was good is looked up from any address."""

TOKENS_KEPT = 10_000

FAILURES, FAILURES_AT_ONCE = 1.0, 20
"""Tokens per second that may name nobody, from one address, and at once."""

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a call says of whoever makes it.

    Args:
        token: what they show.
        word: who they say they are, for a server that takes that.
        address: where the call comes from.
    """

    token: str | None = field(default=None, repr=False)
    word: str | None = None
    address: str = ""


class TooManyCalls(RateLimited):
    """Beyond the rate limit; `allowance` is what is left of it."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__("too many calls", retry_after=allowance.retry_after)
        self.allowance = allowance


class Gate:
    """Lets callers in. Call `start`, and `stop` at the end.

    Args:
        tokens: those that there are; None: callers are taken at their word (`TASKD_AUTH=none`).
        supervisor: owns the looks at who stays.
        rate: calls per second of one token; None: as many as come.
        proxies: networks of proxies whose word on where a call came from is taken.
        catalog: where refusals are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        supervisor: Supervisor,
        *,
        rate: float | None = None,
        proxies: Sequence[Network] = (),
        catalog: Catalog | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._proxies = tuple(proxies)
        self._refused = (catalog or Catalog()).auth_refused
        for reason in ("missing", "unknown", "address", "forbidden", "rate"):
            self._refused.expect(reason)
        self._rates: Buckets[bytes | str] | None = None if rate is None else Buckets(rate, clock=clock)
        self._failures: Buckets[str] = Buckets(FAILURES, FAILURES_AT_ONCE, clock=clock)
        self._believed: TTLCache[bytes, User] = TTLCache(ttl=BELIEVED, entries=TOKENS_KEPT, size=0, clock=clock)
        self._good: TTLCache[bytes, bool] = TTLCache(ttl=REMEMBERED_FOR, entries=TOKENS_KEPT, size=0, clock=clock)
        self._lookups: Batcher[bytes, Token | None] = Batcher(self._look_up, limit=LOOK_AT_ONCE)
        self._held: dict[bytes, dict[object, Callable[[], None]]] = {}
        self._doubted: set[bytes] = set()
        self._looked: float | None = None
        """When all were looked at."""
        self._turns: dict[str, Turns] = {}
        self._service = Periodic("tokens", self.run_once, supervisor, Backoff(0.1, 1.0))

    @property
    def by_word(self) -> bool:
        """Whether callers are taken at their word."""
        return self._tokens is None

    def start(self) -> None:
        """Begin to look at who stays."""
        self._service.start()

    async def stop(self) -> None:
        """Look no longer. Safe twice, and before `start`."""
        await self._service.stop()
        await self._lookups.close()

    def address(self, peer: str, forwarded: bytes | None, x_forwarded_for: bytes | None) -> str:
        """Return where a call came from; see `client_of`."""
        return client_of(peer, self._proxies, forwarded, x_forwarded_for)

    async def identify(self, caller: Caller) -> User:
        """Return who calls.

        Raises:
            Unauthenticated: there is no token, or it names nobody.
            RateLimited: too many tokens of this address named nobody.
            Unavailable: the token can't be looked up now.
        """
        if self._tokens is None:
            return User(caller.word or ANONYMOUS, trusted=True)
        if caller.token is None:
            self._refused.labels("missing").inc()
            raise Unauthenticated("a token is needed, as `Authorization: Bearer tk_…`")
        digest = digest_of(caller.token)
        user = None if digest is None else self._believed.get(digest)
        return user or await self._verified(digest, caller)

    def known(self, authorization: bytes) -> User | None:
        """Return who shows a token that is believed, without a look; see `identify` for all others."""
        if self._tokens is None or len(authorization) > MAX_SHOWN:
            return None
        digest = digest_in(authorization)
        return None if digest is None else self._believed.get(digest)

    def believes(self, user: User) -> bool:
        """Return whether a caller who was let in as this user would be so now, without a look and at no charge."""
        if self._rates is not None and user.role is not Role.ADMIN:
            return False
        return user.token is None or self._believed.get(user.token) is not None

    def charge(self, user: User) -> Allowance | None:
        """Take a call of a user's; return what is left of their limit, or None: there is none.

        Admins have none: by the token of one, a gateway asks on behalf of all its callers.

        Raises:
            TooManyCalls: beyond the limit.
        """
        if self._rates is None or user.role is Role.ADMIN:
            return None
        allowance = self._rates.take(user.token or user.name)
        if allowance.retry_after:
            self._refused.labels("rate").inc()
            raise TooManyCalls(allowance)
        return allowance

    def check(self, user: User, access: Access) -> None:
        """Refuse a call that is not for this user.

        Raises:
            Forbidden: it is for others.
        """
        try:
            require(user, access)
        except Forbidden:
            self._refused.labels("forbidden").inc()
            raise

    def allow(self, user: User, access: Access) -> None:
        """Take a call of a user's, if it is for them; see `charge` and `check`."""
        self.charge(user)
        self.check(user, access)

    def hold(self, user: User, end: Callable[[], None]) -> Callable[[], None]:
        """Call `end` once the user's token is good no longer; the answer ends that. Safe twice."""
        digest = user.token
        if digest is None:
            return _nothing
        mark = object()
        if digest not in self._held and self._believed.get(digest) is None:
            # It was looked up a while ago: what came in between took its time.
            self._doubted.add(digest)
        if self._doubted or not self._held:
            self._service.wake()
        self._held.setdefault(digest, {})[mark] = end

        def release() -> None:
            held = self._held.get(digest, {})
            held.pop(mark, None)
            if not held:
                self._held.pop(digest, None)

        return release

    async def run_once(self) -> float | None:
        """Look at who stays; see `look`.

        Raises:
            Unavailable: for now they can't be looked at, whatever the reason: no stream ends for that, nor the process.
        """
        try:
            return await self.look()
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable(f"tokens can't be looked up: {error!r}") from error

    async def look(self) -> float | None:
        """Look at the tokens of all who stay, or of those who are doubted; return the seconds until the next look.

        None: nobody stays.
        """
        now, (doubted, self._doubted) = self._clock(), (self._doubted, set())
        due = self._looked is None or now - self._looked >= LOOK_EVERY
        held = [digest for digest in self._held if due or digest in doubted]
        for first in range(0, len(held), LOOK_AT_ONCE):
            digests = held[first : first + LOOK_AT_ONCE]
            assert self._tokens is not None
            good = {token.digest for token in await self._tokens.find(digests)}
            for digest in digests:
                if digest not in good:
                    self._believed.pop(digest)
                    for end in tuple(self._held.pop(digest, {}).values()):
                        end()
        if due:
            self._looked = now
        return max(0.0, (self._looked or now) + LOOK_EVERY - now) if self._held else None

    async def _verified(self, digest: bytes | None, caller: Caller) -> User:
        place = place_of(caller.address)
        if digest is not None and self._good.get(digest) is not None:
            return await self._found(digest, caller.token, place)
        turns = self._turns.setdefault(place, Turns())
        turns.wanted += 1
        try:
            await self._turn(turns, place)
            turns.under_way += 1
            try:
                return await self._found(digest, caller.token, place)
            finally:
                turns.under_way -= 1
                turns.pass_on()
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[place]

    async def _turn(self, turns: Turns, place: str) -> None:
        """Wait until a token of this address may be looked up: no more at once than may turn out to name nobody."""
        while True:
            left = self._failures.look(place)
            if not left.remaining:
                self._refused.labels("address").inc()
                raise RateLimited("too many tokens from this address name nobody", retry_after=left.retry_after)
            if turns.under_way < left.remaining:
                return
            await turns.wait()

    async def _found(self, digest: bytes | None, shown: str | None, place: str) -> User:
        begun = self._clock()
        token = None if digest is None else await self._lookups.submit(digest)
        if token is None or digest is None:
            if digest is not None:
                self._good.pop(digest)
            self._failures.take(place)
            self._refused.labels("unknown").inc()
            logger.warning("a token names nobody", extra=log.fields(address=place))
            raise Unauthenticated("the token names nobody: it is unknown, revoked or expired")
        # From when it was looked up: an answer may take its time.
        user = User(token.user, token.role, token=digest, authorization=authorization_of(shown or ""))
        self._believed.put(digest, user, deadline=begun + BELIEVED)
        self._good.put(digest, True)
        self._believed.expire(16)
        self._good.expire(16)
        return user

    async def _look_up(self, digests: Sequence[bytes]) -> Sequence[Token | None]:
        assert self._tokens is not None
        found = {token.digest: token for token in await self._tokens.find(digests)}
        return [_same(found.get(digest), digest) for digest in digests]


class Turns:
    """Who waits to have a token looked up, from one address."""

    def __init__(self) -> None:
        self.wanted = 0
        """Those who wait, and those under way."""
        self.under_way = 0
        self._passed = asyncio.Event()

    async def wait(self) -> None:
        """Wait until one under way has ended."""
        self._passed.clear()
        await self._passed.wait()

    def pass_on(self) -> None:
        """Say that one has ended."""
        self._passed.set()


def _same(token: Token | None, digest: bytes) -> Token | None:
    """Return the token if it is this one, which takes as long whichever byte differs."""
    return token if token is not None and hmac.compare_digest(token.digest, digest) else None


def place_of(address: str) -> str:
    """Return what stands for an address where callers are limited by it: one customer has a whole /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 6:
        mapped = found.ipv4_mapped
        return str(mapped or ipaddress.ip_network((found, 64), strict=False).network_address)
    return str(found)


def _nothing() -> None:
    """Stands for the end of a hold that there is not."""
