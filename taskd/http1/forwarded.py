"""Where a request came from, when proxies stand between (RFC 7239; `X-Forwarded-For` as MDN describes it).

Anybody may send these fields, so only what a proxy that is trusted has written is believed: from the right, as long as
the address that wrote is trusted, the one that it names is the next.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 7239 4: a `for` parameter, whose value may be quoted.
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"\\]*)"|([^";,\s]*))', re.IGNORECASE)
_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([0-9.]+))(?::[0-9]+)?")


def client_of(peer: str, trusted: Sequence[Network], forwarded: bytes | None, x_forwarded_for: bytes | None) -> str:
    """Return the address that a request came from.

    Args:
        peer: the other end of the connection.
        trusted: networks of the proxies that are believed.
        forwarded, x_forwarded_for: the fields, lines joined with commas; None: not sent. Where both are and differ,
            one of them is not of the proxy's making, and neither is believed.
    """
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    chains = []
    if forwarded is not None:
        chains.append([_for_of(element) for element in forwarded.decode("latin-1").split(",")])
    if x_forwarded_for is not None:
        chains.append([element.strip() for element in x_forwarded_for.decode("latin-1").split(",")])
    found = {_walk(peer, chain, trusted) for chain in chains}
    return found.pop() if len(found) == 1 else peer


def _walk(peer: str, chain: Sequence[str], trusted: Sequence[Network]) -> str:
    address = peer
    for hop in reversed(chain):
        if not _is_trusted(address, trusted):
            break
        if (found := _address(hop)) is None:
            # Hidden, or no address (RFC 7239 6.3): whoever wrote it is as far as it goes.
            break
        address = str(found)
    return address


def _for_of(element: str) -> str:
    found = _FOR.search(element.strip())
    return "" if found is None else found[1] if found[1] is not None else found[2]


def _address(text: str) -> Address | None:
    match = _PORT.fullmatch(text)
    try:
        return ipaddress.ip_address(text if match is None else match[1] or match[2])
    except ValueError:
        return None


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found is not None and any(found in network for network in trusted)
