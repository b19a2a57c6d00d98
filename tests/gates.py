"""Gates for parts that are tested without the rest of a server."""

from __future__ import annotations

from dataclasses import replace

from taskd.domain.model import Role, User
from taskd.runtime.supervisor import Supervisor
from taskd.service.auth import Caller, Gate
from taskd.web.identity import Callers


class Words(Gate):
    """Takes callers at their word; `root` is an admin, and `eve` is not trusted."""

    def __init__(self) -> None:
        super().__init__(None, Supervisor())

    async def identify(self, caller: Caller) -> User:
        user = await super().identify(caller)
        role = Role.ADMIN if user.name == "root" else Role.USER
        return replace(user, role=role, trusted=user.name != "eve")


class Broken(Gate):
    """Fails, as a bug would."""

    def __init__(self) -> None:
        super().__init__(None, Supervisor())

    async def identify(self, caller: Caller) -> User:
        raise ZeroDivisionError("the inside")


def trusting() -> Gate:
    """Return a gate that takes callers at their word."""
    return Gate(None, Supervisor())


def callers() -> Callers:
    """Return what reads them from requests."""
    return Callers(trusting())
