"""Whose word on where a request came from is believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.http1.forwarded import client_of

TRUSTED = [ipaddress.ip_network(text) for text in ("127.0.0.1", "10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "x_forwarded_for", "client"),
    [
        # Nobody trusted says anything.
        ("192.0.2.1", None, b"203.0.113.9", "192.0.2.1"),
        ("192.0.2.1", b"for=203.0.113.9", None, "192.0.2.1"),
        # One trusted proxy.
        ("127.0.0.1", None, None, "127.0.0.1"),
        ("127.0.0.1", None, b"203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", b"for=203.0.113.9;proto=https;by=127.0.0.1", None, "203.0.113.9"),
        ("127.0.0.1", b'For="203.0.113.9:4711"', None, "203.0.113.9"),
        ("127.0.0.1", b'proto=http ; for="[2001:db8::1]:80"', None, "2001:db8::1"),
        ("::ffff:10.1.1.1", None, b"203.0.113.9", "203.0.113.9"),
        # What the client wrote itself stands on the left, and is not looked at.
        ("127.0.0.1", None, b"8.8.8.8, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", b"for=8.8.8.8, for=203.0.113.9", None, "203.0.113.9"),
        # Several trusted proxies.
        ("127.0.0.1", None, b"8.8.8.8, 203.0.113.9, 10.0.0.7, 10.0.0.8", "203.0.113.9"),
        ("fd00::1", None, b"203.0.113.9,10.0.0.7", "203.0.113.9"),
        ("127.0.0.1", None, b"10.0.0.9", "10.0.0.9"),
        # What is no address ends the chain (RFC 7239 6.3).
        ("127.0.0.1", b"for=unknown", None, "127.0.0.1"),
        ("127.0.0.1", b"for=_hidden, for=10.0.0.7", None, "10.0.0.7"),
        ("127.0.0.1", None, b"rubbish", "127.0.0.1"),
        ("127.0.0.1", None, b"", "127.0.0.1"),
        ("127.0.0.1", b"for", None, "127.0.0.1"),
        ("127.0.0.1", b'for="203.0.113.9', None, "127.0.0.1"),
        # A proxy writes one of them; the other one may be its client's.
        ("127.0.0.1", b"for=8.8.8.8", b"203.0.113.9", "127.0.0.1"),
        ("127.0.0.1", b"for=203.0.113.9", b"203.0.113.9", "203.0.113.9"),
        ("", None, b"203.0.113.9", ""),
    ],
)
def test_the_client_is_the_last_that_a_trusted_one_names(
    peer: str, forwarded: bytes | None, x_forwarded_for: bytes | None, client: str
) -> None:
    assert client_of(peer, TRUSTED, forwarded, x_forwarded_for) == client
    assert client_of(peer, [], forwarded, x_forwarded_for) == peer


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_what_is_sent_is_never_too_much(forwarded: bytes, x_forwarded_for: bytes) -> None:
    found = client_of("10.0.0.1", TRUSTED, forwarded, x_forwarded_for)
    ipaddress.ip_address(found)
