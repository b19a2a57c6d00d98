"""Who is connected: at most one connection of each user and client name, and at most so many of a user."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, NamedTuple, Protocol, TypeVar

from taskd.domain.model import User

MAX_SOCKETS = 10_000
"""Sockets at once, of all users; beyond it a handshake is answered with 503."""


class Member(Protocol):
    """A connection, as far as its place among the others is concerned."""

    @property
    def user(self) -> User: ...

    @property
    def client(self) -> str: ...


M = TypeVar("M", bound=Member)


class Displaced(NamedTuple, Generic[M]):
    """A connection that had to give way, and what it is to be told."""

    member: M
    code: int
    reason: str


class Registry(Generic[M]):
    """Open connections, by the name of their user; decides, and closes nothing itself.

    Args:
        limit: connections of one user.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        # Of each user, by client name, the oldest first.
        self._users: dict[str, dict[str, M]] = {}
        self._see_all: dict[M, None] = {}

    def __len__(self) -> int:
        return self._count

    def register(self, member: M) -> Displaced[M] | None:
        """Add a connection, and return the one that it displaces, which is no longer in here."""
        members = self._users.setdefault(member.user.name, {})
        displaced = None
        if old := members.get(member.client):
            displaced = Displaced(old, 4000, "replaced")
        elif len(members) >= self._limit:
            displaced = Displaced(next(iter(members.values())), 4001, "too many connections")
        # Added first, so that there is no moment at which the user is not here.
        members.pop(member.client, None)
        members[member.client] = member
        self._count += 1
        if member.user.sees_all:
            self._see_all[member] = None
        if displaced:
            self._forget(displaced.member)
        return displaced

    def unregister(self, member: M) -> bool:
        """Remove this very connection; return whether it was here. Its successor of the same name stays."""
        if self._users.get(member.user.name, {}).get(member.client) is not member:
            return False
        self._forget(member)
        return True

    def _forget(self, member: M) -> None:
        members = self._users[member.user.name]
        if members.get(member.client) is member:
            del members[member.client]
        if not members:
            del self._users[member.user.name]
        self._see_all.pop(member, None)
        self._count -= 1

    def of_owner(self, owner: str) -> Collection[M]:
        """Return the connections of a user. A copy is needed to change the registry meanwhile."""
        return self._users.get(owner, {}).values()

    def seeing_all(self) -> Collection[M]:
        """Return the connections of users to whom every owner's tasks are visible."""
        return self._see_all.keys()

    def all(self) -> list[M]:
        """Return every connection."""
        return [member for members in self._users.values() for member in members.values()]
