"""Tokens for tests, made as `taskd token create` makes them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from taskd.domain.model import Role
from taskd.domain.token import digest_of, new_token
from taskd.store.pool import Database
from taskd.store.tokens import TokenStore


@contextlib.asynccontextmanager
async def store_of(database_url: str) -> AsyncIterator[TokenStore]:
    """Give the tokens of a database."""
    database = Database(database_url, max_size=1)
    await database.open()
    try:
        yield TokenStore(database)
    finally:
        await database.close()


async def token(database_url: str, user: str = "ann", role: Role = Role.USER) -> str:
    """Make a token."""
    made = new_token()
    digest = digest_of(made)
    assert digest is not None
    async with store_of(database_url) as tokens:
        await tokens.create(digest, user, role)
    return made


async def revoke(database_url: str, user: str) -> None:
    """Revoke all tokens of a user."""
    async with store_of(database_url) as tokens:
        assert await tokens.revoke(user=user)
