"""Which calls are for whom. Every call of every transport names one of these rules, and there is no default."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from taskd.domain.model import Role, User
from taskd.errors import Forbidden


class Access(Enum):
    """Who may make a call. Which tasks a caller then sees is another question: `User.sees_all`."""

    OPEN = "whoever asks"
    KNOWN = "whoever has a token"
    TASKS = "users and admins"
    WORK = "workers and admins"
    METRICS = "whoever watches the server, and admins"
    ADMIN = "admins"


_ROLES: Mapping[Access, frozenset[Role]] = {
    Access.OPEN: frozenset(Role),
    Access.KNOWN: frozenset(Role),
    Access.TASKS: frozenset({Role.USER, Role.ADMIN}),
    Access.WORK: frozenset({Role.WORKER, Role.ADMIN}),
    Access.METRICS: frozenset({Role.METRICS, Role.ADMIN}),
    Access.ADMIN: frozenset({Role.ADMIN}),
}


def may(user: User, access: Access) -> bool:
    """Return whether a user may make a call."""
    return user.trusted or user.role in _ROLES[access]


def require(user: User, access: Access) -> None:
    """Refuse a call that is not for this user.

    Raises:
        Forbidden: its message names the role, and whom the call is for.
    """
    if not may(user, access):
        raise Forbidden(f"this call is for {access.value}; the token's role is {user.role}")
