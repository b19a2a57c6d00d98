"""Who calls, by the call's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taskd.domain.fields import Bad
from taskd.domain.forms import OWNER
from taskd.domain.model import User
from taskd.errors import Fault, Invalid

Metadata = Mapping[str, str | bytes]
Identify = Callable[[Metadata], User]

USER = "x-taskd-user"
USER_BYTES = "x-taskd-user-bin"
"""The same in UTF-8: other metadata is ASCII (gRPC over HTTP/2, "Custom-Metadata")."""


def by_word(metadata: Metadata) -> User:
    """Return the user that the caller claims to be, else `anonymous`.

    For `TASKD_AUTH=none`, which serves on loopback only: whoever reaches it is trusted.

    Raises:
        Invalid: the name is none that an owner can have.
    """
    given = metadata.get(USER_BYTES, metadata.get(USER))
    if given is None:
        return User("anonymous")
    text = given.decode("utf-8", "surrogateescape") if isinstance(given, bytes) else given
    name = OWNER.check(text)
    if isinstance(name, Bad):
        raise Invalid([Fault(USER, name.message)])
    return User(name)
