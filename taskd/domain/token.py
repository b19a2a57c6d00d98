"""Tokens: what a caller shows to be known.

A token is `tk_` and 32 random bytes in base62. Whoever has it is its user, so it is shown once, when it is made, and
the database holds no more than its SHA-256. A slow hash would add nothing: nobody guesses 256 random bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from taskd.domain.model import Role

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_LENGTH = 43
"""Of 2**256 - 1 in base 62."""

TOKEN = re.compile(rf"tk_[0-9A-Za-z]{{{_LENGTH}}}")
# RFC 6750 2.1. The scheme's name is in any case (RFC 9110 11.1).
_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)

MAX_NOTE = 200

MAX_SHOWN = 100
"""Bytes of `Authorization` that are worth to be remembered: with more, what it shows is no token."""


class Token(NamedTuple):
    """What is known of a token."""

    digest: bytes
    user: str
    role: Role
    expires_at: datetime | None = None


class TokenRecord(NamedTuple):
    """A token as it is listed: `id` is what it is revoked by."""

    id: int
    token: Token
    note: str
    created_at: datetime


def new_token() -> str:
    """Return a token that nobody else has."""
    number = int.from_bytes(secrets.token_bytes(32))
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "tk_" + "".join(reversed(digits))


def digest_of(token: str) -> bytes | None:
    """Return the SHA-256 of a token, 32 bytes, or None for a text that can be none."""
    return hashlib.sha256(token.encode("ascii")).digest() if TOKEN.fullmatch(token) else None


def authorization_of(token: str) -> str:
    """Return the value of `Authorization` that shows a token."""
    return f"Bearer {token}"


def token_in(authorization: bytes) -> str:
    """Return what such a value shows; empty, which is no token, when it is of another scheme."""
    found = _BEARER.fullmatch(authorization)
    return "" if found is None else found[1].decode("ascii")


@lru_cache(maxsize=1000)
def digest_in(authorization: bytes) -> bytes | None:
    """Return the SHA-256 of the token that such a value shows, None if it shows none. Callers repeat themselves."""
    return digest_of(token_in(authorization))
