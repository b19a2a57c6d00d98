"""Who calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskd.domain.fields import Bad
from taskd.domain.forms import OWNER
from taskd.domain.model import User
from taskd.errors import Fault, Invalid
from taskd.http1.head import Head

Query = Sequence[tuple[str, str]]
Identify = Callable[[Head, Query], User]


def by_word(head: Head, query: Query) -> User:
    """Return the user that the caller claims to be: `X-Taskd-User`, else `?user=`, else `anonymous`.

    For `TASKD_AUTH=none`, which serves on loopback only: whoever reaches it is trusted. A token is not looked at, but
    kept for a service elsewhere, which may.

    Raises:
        Invalid: the name is none that an owner can have.
    """
    authorization = _authorization(head)
    given = head.get(b"x-taskd-user")
    if given is not None:
        return User(_name(given.decode("utf-8", "surrogateescape"), "X-Taskd-User"), authorization=authorization)
    names = [value for name, value in query if name == "user"]
    if len(names) > 1:
        raise Invalid([Fault("user", "is given twice")])
    return User(_name(names[0], "user") if names else "anonymous", authorization=authorization)


def _authorization(head: Head) -> str | None:
    """Return the field as it came; what is beyond ASCII is no credentials (RFC 9110 11.4)."""
    given = head.get(b"authorization")
    return given.decode("ascii") if given is not None and given.isascii() else None


def _name(text: str, field: str) -> str:
    name = OWNER.check(text)
    if isinstance(name, Bad):
        raise Invalid([Fault(field, name.message)])
    return name
