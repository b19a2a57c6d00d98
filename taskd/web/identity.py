"""Who calls over HTTP, and whether they may."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from taskd.domain.access import Access
from taskd.domain.fields import Bad
from taskd.domain.forms import OWNER
from taskd.domain.model import User
from taskd.errors import Fault, Invalid
from taskd.http1.forwarded import Network, client_of
from taskd.http1.head import Head
from taskd.runtime.buckets import Allowance
from taskd.service.auth import ANONYMOUS, Caller, Gate, TooManyCalls
from taskd.web.message import Request

Query = Sequence[tuple[str, str]]

# RFC 6750 2.1. The scheme's name is in any case (RFC 9110 11.1).
_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
_OFFERED = re.compile(r"bearer\.([0-9A-Za-z_]+)")


class Callers:
    """Reads from requests who sends them, for the gate.

    Args:
        gate: lets them in.
        proxies: networks of proxies whose word on where a request came from is taken.
    """

    def __init__(self, gate: Gate, proxies: Sequence[Network] = ()) -> None:
        self._gate = gate
        self._proxies = tuple(proxies)

    async def admit(self, request: Request, access: Access) -> None:
        """Fill in a request's user, if they may make this call; `user` is no parameter of any call.

        Raises:
            Unauthenticated, Forbidden, RateLimited, Unavailable, Invalid: they may not.
        """
        if access is not Access.OPEN:
            request.user = await self._identify(request.head, request.query, request.peer)
            try:
                request.allowance = self._gate.allow(request.user, access)
            except TooManyCalls as error:
                request.allowance = error.allowance
                raise
        # Of what is open as well: the dashboard is asked for with the name that its own calls will have.
        if self._gate.by_word:
            request.query = [pair for pair in request.query if pair[0] != "user"]

    async def admit_socket(self, head: Head, query: Query, peer: str) -> User:
        """Return who asks for a socket. Browsers can't send a token but as a subprotocol, `bearer.<token>`.

        Raises:
            Unauthenticated, Forbidden, RateLimited, Unavailable, Invalid: they may have none.
        """
        user = await self._identify(head, query, peer, offered=_offered(head))
        self._gate.allow(user, Access.TASKS)
        return user

    def address(self, head: Head, peer: str) -> str:
        """Return where a request came from."""
        return client_of(peer, self._proxies, head.get(b"forwarded"), head.get(b"x-forwarded-for"))

    async def _identify(self, head: Head, query: Query, peer: str, offered: str | None = None) -> User:
        if self._gate.by_word:
            return await self._gate.identify(Caller(word=_word(head, query)))
        if any(name == "user" for name, _ in query):
            raise Invalid([Fault("user", "is only for a server that takes callers at their word; here a token says")])
        token = _token(head) or offered
        return await self._gate.identify(Caller(token, address=self.address(head, peer)))


def _token(head: Head) -> str | None:
    """Return what `Authorization` shows; of another scheme, or sent twice, it is no token."""
    given = head.get(b"authorization")
    if given is None:
        return None
    found = _BEARER.fullmatch(given)
    return "" if found is None else found[1].decode("ascii")


def _offered(head: Head) -> str | None:
    """Return the token among the subprotocols that are offered (RFC 6455 11.3.4)."""
    for word in (head.get(b"sec-websocket-protocol") or b"").decode("latin-1").split(","):
        if found := _OFFERED.fullmatch(word.strip()):
            return found[1]
    return None


def _word(head: Head, query: Query) -> str:
    """Return the user that the caller claims to be: `X-Taskd-User`, else `?user=`, else `anonymous`.

    Raises:
        Invalid: the name is none that an owner can have.
    """
    given = head.get(b"x-taskd-user")
    if given is not None:
        return _name(given.decode("utf-8", "surrogateescape"), "X-Taskd-User")
    names = [value for name, value in query if name == "user"]
    if len(names) > 1:
        raise Invalid([Fault("user", "is given twice")])
    return _name(names[0], "user") if names else ANONYMOUS


def _name(text: str, field: str) -> str:
    name = OWNER.check(text)
    if isinstance(name, Bad):
        raise Invalid([Fault(field, name.message)])
    return name


def limit_headers(allowance: Allowance) -> tuple[tuple[str, str], ...]:
    """Return what is left of a limit as fields (draft-ietf-httpapi-ratelimit-headers, before its version 8)."""
    return (
        ("RateLimit-Limit", str(allowance.limit)),
        ("RateLimit-Remaining", str(allowance.remaining)),
        ("RateLimit-Reset", str(math.ceil(allowance.reset))),
    )
