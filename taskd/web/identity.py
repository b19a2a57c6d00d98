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

    For `TASKD_AUTH=none`, which serves on loopback only: whoever reaches it is trusted.

    Raises:
        Invalid: the name is none that an owner can have.
    """
    given = head.get(b"x-taskd-user")
    if given is not None:
        return _named(given.decode("utf-8", "surrogateescape"), "X-Taskd-User")
    names = [value for name, value in query if name == "user"]
    if len(names) > 1:
        raise Invalid([Fault("user", "is given twice")])
    return _named(names[0], "user") if names else User("anonymous")


def _named(text: str, field: str) -> User:
    name = OWNER.check(text)
    if isinstance(name, Bad):
        raise Invalid([Fault(field, name.message)])
    return User(name)
