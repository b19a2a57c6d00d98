"""Closes connections that grpcio gives no hold of: found among the descriptors of the process by their two ends."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

DESCRIPTORS = "/dev/fd"
"""Of Linux, macOS and the BSDs."""

End = tuple[str, int]


def sever(peers: Collection[str], port: int) -> int:
    """Close connections in both directions; return how many were found. Core sees that they ended, and tidies up.

    Args:
        peers: their other ends, as gRPC names them (`ServerContext.peer`).
        port: their end here: an address may have a connection to another port of this process, too.
    """
    ends = {_end_of(peer) for peer in peers} - {None}
    found = 0
    for name in os.listdir(DESCRIPTORS):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            # A copy: looked at and shut down as one, though another thread may close the number and open it again.
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with copy:
            try:
                here = copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port
                if here and _plain(*copy.getpeername()[:2]) in ends:
                    copy.shutdown(socket.SHUT_RDWR)
                    found += 1
            except OSError:
                # It listens, or is closed already.
                continue
    return found


def _end_of(peer: str) -> End | None:
    """Return the address and port of `ipv4:127.0.0.1:80` or `ipv6:%5B::1%5D:80`."""
    family, _, rest = unquote(peer).partition(":")
    address, _, port = rest.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(address.strip("[]"), int(port))


def _plain(address: str, port: int) -> End:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address, port
    # A socket for both families names IPv4 in the words of IPv6 (RFC 4291, 2.5.5.2).
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found), port
