"""Tokens, as the database has them."""

from __future__ import annotations

from collections.abc import Sequence

from taskd.domain.model import Role
from taskd.domain.token import Token, TokenRecord
from taskd.store.pool import Database, Row
from taskd.store.statements import load

_SQL = load("tokens")


FIRST_TOKEN = "`taskd token create --user NAME --role admin` makes one"


class TokenStore:
    """Implements `ports.Tokens`, and what the command line does with tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digests: Sequence[bytes]) -> Sequence[Token]:
        """Return those of these tokens that are good; see `ports.Tokens`."""
        return [_token(row) for row in await self._database.fetch(_SQL["find"], list(digests))]

    async def create(
        self, digest: bytes, user: str, role: Role, note: str = "", expires_in: float | None = None
    ) -> TokenRecord:
        """Keep a token.

        Args:
            digest: its SHA-256.
            expires_in: seconds for which it is good; None: until it is revoked.
        """
        row = await self._database.fetchrow(_SQL["create"], digest, user, role.value, note, expires_in)
        assert row is not None
        return _record(row)

    async def list(self, user: str | None = None) -> Sequence[TokenRecord]:
        """Return all tokens, or those of a user, the oldest first."""
        return [_record(row) for row in await self._database.fetch(_SQL["list"], user)]

    async def revoke(self, ids: Sequence[int] = (), user: str | None = None) -> Sequence[TokenRecord]:
        """Revoke tokens by number, and all of a user; return those that there were."""
        return [_record(row) for row in await self._database.fetch(_SQL["revoke"], list(ids), user)]

    async def any(self) -> bool:
        """Return whether anybody has a token."""
        return bool(await self._database.fetchval(_SQL["any"]))


def _token(row: Row) -> Token:
    return Token(row["digest"], row["user_name"], Role(row["role"]), row["expires_at"])


def _record(row: Row) -> TokenRecord:
    return TokenRecord(row["id"], _token(row), row["note"], row["created_at"])
