"""Tokens: their form, and what is kept of them."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.domain import token as module
from taskd.domain.token import digest_of, new_token

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def decoded(token: str) -> bytes:
    """Return the bytes that a token is made of."""
    number = 0
    for digit in token.removeprefix("tk_"):
        number = number * 62 + BASE62.index(digit)
    return number.to_bytes(32)


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_its_32_random_bytes_in_base62(random: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.secrets, "token_bytes", lambda size: random[:size])
        token = new_token()
    assert len(token) == 46
    assert decoded(token) == random


def test_no_two_are_the_same() -> None:
    assert len({new_token() for _ in range(1000)}) == 1000


def test_of_a_token_its_sha_256_is_kept() -> None:
    token = new_token()
    assert digest_of(token) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize(
    "text",
    ["", "tk_", "tk_" + "a" * 42, "tk_" + "a" * 44, "TK_" + "a" * 43, "a" * 46, "tk_" + "ü" * 43, "tk_" + "-" * 43,
     "tk_" + "a" * 43 + "\n"],
)  # fmt: skip
def test_what_can_be_no_token_has_no_digest(text: str) -> None:
    assert digest_of(text) is None
