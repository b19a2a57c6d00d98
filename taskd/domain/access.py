"""Which calls are for whom. Every call of every transport names one of these rules, and there is no default."""

from __future__ import annotations

from enum import Enum

from taskd.domain.model import Role, User
from taskd.errors import Forbidden


class Access(Enum):
    """Who may make a call. Which tasks a caller then sees is another question: `User.sees_all`."""

    OPEN = "whoever asks", *Role
    KNOWN = "whoever has a token", *Role
    TASKS = "users and admins", Role.USER, Role.ADMIN
    WORK = "workers and admins", Role.WORKER, Role.ADMIN
    METRICS = "whoever watches the server, and admins", Role.METRICS, Role.ADMIN
    ADMIN = "admins", Role.ADMIN

    def __init__(self, whom: str, *roles: Role) -> None:
        self.whom = whom
        self.roles = frozenset(roles)


def may(user: User, access: Access) -> bool:
    """Return whether a user may make a call."""
    return user.trusted or user.role in access.roles


def require(user: User, access: Access) -> None:
    """Refuse a call that is not for this user.

    Raises:
        Forbidden: its message names the role, and whom the call is for.
    """
    if not may(user, access):
        raise Forbidden(f"this call is for {access.whom}; the token's role is {user.role}")
