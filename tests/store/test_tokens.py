"""Tokens in the database."""

from __future__ import annotations

import asyncpg
import pytest

from taskd.domain.model import Role
from taskd.domain.token import Token, digest_of, new_token
from taskd.store.pool import Database
from taskd.store.tokens import TokenStore


@pytest.fixture
async def tokens(database: Database) -> TokenStore:
    return TokenStore(database)


def digest() -> bytes:
    made = digest_of(new_token())
    assert made is not None
    return made


async def test_what_was_made_is_found_and_listed(tokens: TokenStore) -> None:
    assert not await tokens.any()
    one, two = digest(), digest()
    first = await tokens.create(one, "ann", Role.USER, "laptop")
    second = await tokens.create(two, "bob", Role.ADMIN)
    assert await tokens.any()
    found = await tokens.find([one, digest(), two])
    assert sorted(found, key=lambda token: token.user) == [Token(one, "ann", Role.USER), Token(two, "bob", Role.ADMIN)]
    assert await tokens.find([]) == []
    assert list(await tokens.list()) == [first, second]
    assert list(await tokens.list("bob")) == [second]
    assert (first.note, second.note) == ("laptop", "")


async def test_what_was_revoked_is_gone(tokens: TokenStore) -> None:
    records = [await tokens.create(digest(), user, Role.USER) for user in ("ann", "ann", "bob", "eve")]
    assert list(await tokens.revoke([records[0].id, 10**9])) == [records[0]]
    assert list(await tokens.revoke(user="ann")) == [records[1]]
    assert list(await tokens.revoke(user="ann")) == []
    assert list(await tokens.list()) == records[2:]
    assert await tokens.find([record.token.digest for record in records[:2]]) == []


async def test_what_has_expired_names_nobody_and_stays_listed(tokens: TokenStore, database: Database) -> None:
    one = digest()
    record = await tokens.create(one, "ann", Role.USER, expires_in=3600)
    assert record.token.expires_at is not None
    assert (record.token.expires_at - record.created_at).total_seconds() == 3600
    assert await tokens.find([one]) == [record.token]
    await database.execute("UPDATE tokens SET expires_at = statement_timestamp()")
    assert await tokens.find([one]) == []
    assert not await tokens.any()
    assert len(await tokens.list()) == 1


async def test_the_database_never_sees_a_token(tokens: TokenStore, database: Database) -> None:
    await tokens.create(digest(), "ann", Role.USER)
    row = await database.fetchrow("SELECT * FROM tokens")
    assert row is not None
    assert "tk_" not in repr(tuple(row))


@pytest.mark.parametrize(("role", "size"), [("root", 32), ("user", 31)])
async def test_the_table_takes_nothing_else(database: Database, role: str, size: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await database.execute("INSERT INTO tokens (digest, user_name, role) VALUES ($1, 'ann', $2)", bytes(size), role)
