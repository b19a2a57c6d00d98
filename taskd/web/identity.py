"""Who calls over HTTP, and whether they may."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from taskd.domain.access import Access
from taskd.domain.forms import parse_owner
from taskd.domain.model import User
from taskd.domain.token import token_in
from taskd.errors import Fault, Forbidden, Invalid
from taskd.http1.head import Head
from taskd.service.auth import ANONYMOUS, Caller, Gate, TooManyCalls
from taskd.web.message import Request

Query = Sequence[tuple[str, str]]

_PORT = re.compile(r":[0-9]*\Z")
_OFFERED = re.compile(r"bearer\.([0-9A-Za-z_]+)")


class Callers:
    """Reads from requests who sends them, for the gate.

    Args:
        gate: lets them in.
        names: of this server, besides loopback addresses and `localhost`, where callers are taken at their word; None:
            whatever it is called. A page whose name is made to mean a loopback address could call it as its own.
    """

    def __init__(self, gate: Gate, names: Collection[str] | None = None) -> None:
        self._gate = gate
        self._names = names

    async def admit(self, request: Request, access: Access) -> None:
        """Fill in a request's user, if they may make this call; `user` is no parameter of any call.

        Raises:
            Unauthenticated, Forbidden, RateLimited, Unavailable, Invalid: they may not.
        """
        if access is not Access.OPEN:
            request.user = await self._identify(request.head, request.query, request.peer)
            try:
                request.allowance = self._gate.charge(request.user)
            except TooManyCalls as error:
                request.allowance = error.allowance
                raise
            self._gate.check(request.user, access)
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

    async def _identify(self, head: Head, query: Query, peer: str, offered: str | None = None) -> User:
        if self._gate.by_word:
            self._check_name(head)
            return await self._gate.identify(Caller(word=_word(head, query)))
        if query and any(name == "user" for name, _ in query):
            raise Invalid([Fault("user", "is only for a server that takes callers at their word; here a token says")])
        shown = head.values.get(b"authorization")
        known = None if shown is None else self._gate.known(shown)
        if known is not None:
            return known
        token = offered if shown is None else token_in(shown) or offered
        address = self._gate.address(peer, head.get(b"forwarded"), head.get(b"x-forwarded-for"))
        return await self._gate.identify(Caller(token, address=address))

    def _check_name(self, head: Head) -> None:
        host = head.get(b"host")
        if self._names is None or host is None:
            return
        name = _PORT.sub("", host.decode("latin-1").lower())
        if name not in self._names and not is_local(name):
            raise Forbidden("with TASKD_AUTH=none, this server answers by its loopback address and as localhost only")


def is_local(name: str) -> bool:
    """Return whether a name of a host means this machine, whatever a name server says."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


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
        return parse_owner(given.decode("utf-8", "surrogateescape"), "X-Taskd-User")
    names = [value for name, value in query if name == "user"]
    if len(names) > 1:
        raise Invalid([Fault("user", "is given twice")])
    return parse_owner(names[0], "user") if names else ANONYMOUS
