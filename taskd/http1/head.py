"""The head of a request: request line and fields, checked as a whole.

The rules are those of RFC 9112 with every leniency that it allows a server left out, since each has been used to
make two parsers in a row see different requests. A head that gets through here has exactly one reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import NamedTuple, TypeVar

from taskd.http1.limits import BadRequest, Limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
# RFC 9112 3: one SP between the parts. The target is any visible ASCII: clients send `"` and `|` as they are. But a
# `#` never belongs to a target (RFC 9110 7.1), and readers differ on what it does.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb') ([!"$-~]+) HTTP/([0-9]\.[0-9])')
_VERSIONS = {b"1.0": (1, 0), b"1.1": (1, 1)}
# RFC 3986 3.2.2 and 3.2.3, without user information, which RFC 9110 4.2.4 says to treat as an error, and without the
# comma: no name has one, but two Host fields that somebody on the way joined do.
_AUTHORITY = rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?"
_HOST = re.compile(_AUTHORITY)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"https?://(" + _AUTHORITY + rb")(?:[/?].*)?", re.IGNORECASE)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"})
# RFC 9110 5.3: fields that are no lists come once. Of two, one reader takes the first and the next one the last: who
# asks, from where, and for what must not depend on that.
_ONCE = frozenset(
    {
        b"authorization", b"content-location", b"content-range", b"content-type", b"date", b"from",
        b"if-modified-since", b"if-range", b"if-unmodified-since", b"max-forwards", b"origin", b"range", b"referer",
        b"user-agent", b"idempotency-key", b"sec-websocket-key", b"sec-websocket-version",
    }
)  # fmt: skip
_LENGTH_DIGITS = 20  # as h11: more can't be meant, whatever the zeros in front

Fields = tuple[tuple[bytes, bytes], ...]

K = TypeVar("K")
V = TypeVar("V")


class Section(NamedTuple):
    """What the fields of a head say, whatever its request line."""

    headers: Fields
    values: Mapping[bytes, bytes]
    host: bytes | None
    keep_alive: bool
    content_length: int | None
    chunked: bool
    expect_continue: bool
    upgrade: bytes | None


class Head(NamedTuple):
    """A request's head, read and checked. Values are immutable, so one may be handed out many times.

    Args:
        method: as sent; one of those of RFC 9110 9.3, PATCH and QUERY, save CONNECT.
        target: as sent, in origin-form, absolute-form, or `*` for OPTIONS; see `taskd.http1.target.split`.
        version: `(1, 0)` or `(1, 1)`.
        raw: the exact bytes of the head with its last empty line.
        headers: fields in order, names in lower case, values without the whitespace around them.
        values: the same by name; lines of one name are joined with `, ` (RFC 9110 5.3).
        host: the `Host` field.
        keep_alive: the client does not ask for the connection to end (RFC 9112 9.3).
        content_length: the announced size in bytes, or None.
        chunked: the body is in chunked coding. Neither this nor a length: there is no body.
        expect_continue: the client waits for `100 Continue` before it sends the body (RFC 9110 10.1.1).
        upgrade: the `Upgrade` field in lower case, if `Connection` names it (RFC 9110 7.8).
    """

    method: str
    target: bytes
    version: tuple[int, int]
    raw: bytes
    headers: Fields
    values: Mapping[bytes, bytes]
    host: bytes | None
    keep_alive: bool
    content_length: int | None
    chunked: bool
    expect_continue: bool
    upgrade: bytes | None

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the field `name` (in lower case), or None."""
        return self.values.get(name)


def _by_name(fields: Fields) -> Mapping[bytes, bytes]:
    found = dict(fields)
    if len(found) < len(fields):
        for name in found:
            found[name] = b", ".join(value for key, value in fields if key == name)
    return found


def parse_fields(lines: list[bytes], limits: Limits) -> Fields:
    """Return the fields of `lines`, which hold no control bytes but HTAB (RFC 9112 5).

    Raises:
        BadRequest: 400 for a line that is no field; 431 for too many.
    """
    if len(lines) > limits.fields:
        raise BadRequest(431, f"more than {limits.fields} fields")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # RFC 9112 5.1: no whitespace before the colon; 5.2: no folded line, which begins with whitespace. Neither is
        # a token.
        if not colon or _NAME.fullmatch(name) is None:
            raise BadRequest(400, "a field line is malformed")
        name, value = name.lower(), value.strip(b" \t")
        # llhttp reads no tab around this value; two readers of one body must not differ.
        if name == b"transfer-encoding" and b"\t" in line:
            raise BadRequest(400, "Transfer-Encoding is malformed")
        fields.append((name, value))
    return tuple(fields)


def _once(fields: Fields) -> None:
    seen: set[bytes] = set()
    for name, _ in fields:
        if name in seen and name in _ONCE:
            raise BadRequest(400, "a field that is no list came twice")
        seen.add(name)


def _is_authority(value: bytes) -> bool:
    """Tell whether it is a host, with a port that can be one or without (RFC 3986 3.2)."""
    if _HOST.fullmatch(value) is None:
        return False
    port = value.rpartition(b":")[2]
    # Within brackets there is no port: the last part of an address ends with one.
    if port.isdigit() and b":" in value and int(port) > 65535:
        return False
    if not value.startswith(b"["):
        return True
    try:
        IPv6Address(value[1 : value.index(b"]")].decode("ascii"))
    except ValueError:
        return False
    return True


def _host(fields: Fields, version: tuple[int, int]) -> bytes | None:
    """RFC 9112 3.2: exactly one valid Host in HTTP/1.1; at most one before."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == (1, 1)):
        raise BadRequest(400, "exactly one Host field is needed")
    if hosts and not _is_authority(hosts[0]):
        raise BadRequest(400, "the Host field is malformed")
    return hosts[0] if hosts else None


def _target(method: str, target: bytes, limits: Limits) -> None:
    """RFC 9112 3.2: the form of the target, as far as this server is concerned."""
    if len(target) > limits.target:
        raise BadRequest(414, f"the request target is longer than {limits.target} bytes")
    # RFC 3986 2.1: refused here and not by who decodes it, since readers differ on what is left of it.
    if b"%" in target and _BAD_ESCAPE.search(target) is not None:
        raise BadRequest(400, "the request target has a malformed percent-encoding")
    if target.startswith(b"/") or (target == b"*" and method == "OPTIONS"):
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _is_authority(absolute[1]):
        raise BadRequest(400, "the request target is malformed")


def _framing(
    fields: Fields, coding: bytes | None, version: tuple[int, int], limits: Limits
) -> tuple[int | None, bool]:
    """Return the content length and whether the body is chunked (RFC 9112 6)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    if coding is not None:
        # RFC 9112 6.1: both, or coding in HTTP/1.0, is what request smuggling looks like.
        if lengths or version < (1, 1):
            raise BadRequest(400, "Transfer-Encoding is not allowed here")
        _coding(coding)
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS:
        raise BadRequest(400, "Content-Length is malformed")
    length = int(lengths[0])
    if length > limits.body:
        raise BadRequest(413, f"the body is larger than {limits.body} bytes")
    return length, False


def _coding(value: bytes) -> None:
    codings = [part.strip(b" \t").lower() for part in value.split(b",")]
    if codings == [b"chunked"]:
        return
    # RFC 9112 6.3: chunked comes last and once, or the end of the body is anybody's guess.
    if b"chunked" in codings[:-1] or not all(_NAME.fullmatch(part) for part in codings):
        raise BadRequest(400, "Transfer-Encoding is malformed")
    raise BadRequest(501, "the only transfer coding here is chunked")


def _expectation(value: bytes | None, version: tuple[int, int], has_body: bool) -> bool:
    if value is None or version < (1, 1):  # RFC 9110 10.1.1: ignored in HTTP/1.0
        return False
    if value.lower() != b"100-continue":
        raise BadRequest(417, "the only expectation here is 100-continue")
    return has_body


def parse_section(raw: bytes, version: tuple[int, int], limits: Limits) -> Section:
    """Read the fields of a complete head.

    Args:
        raw: from behind the request line to the last field, without the line end behind it.
        version: of the request line.
        limits: bounds.

    Raises:
        BadRequest: 400, 413, 417, 431 or 501.
    """
    fields = parse_fields(raw.split(b"\r\n") if raw else [], limits)
    _once(fields)
    host = _host(fields, version)
    values = _by_name(fields)
    content_length, chunked = _framing(fields, values.get(b"transfer-encoding"), version, limits)
    options = {option.strip(b" \t") for option in values.get(b"connection", b"").lower().split(b",")}
    upgrade = values.get(b"upgrade") if b"upgrade" in options and version == (1, 1) else None
    return Section(
        headers=fields,
        values=values,
        host=host,
        keep_alive=b"close" not in options and (version == (1, 1) or b"keep-alive" in options),
        content_length=content_length,
        chunked=chunked,
        expect_continue=_expectation(values.get(b"expect"), version, chunked or bool(content_length)),
        upgrade=None if upgrade is None else upgrade.lower(),
    )


ReadSection = Callable[[bytes, tuple[int, int], Limits], Section]


def parse_head(raw: bytes, limits: Limits, read: ReadSection = parse_section) -> Head:
    """Read a complete head (RFC 9112 3 and 5, RFC 9110 7.2).

    Args:
        raw: from the method to the empty line, both included; no control bytes but CRLF and HTAB.
        limits: bounds; the size of `raw` has been checked.
        read: reads the fields, as `parse_section` does.

    Raises:
        BadRequest: 400, 413, 414, 417, 431, 501 or 505.
    """
    first, _, rest = raw[:-4].partition(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequest(400, "the request line is malformed")
    method, target = line[1].decode("ascii"), line[2]
    version = _VERSIONS.get(line[3])
    if version is None:
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    # RFC 9110 9.1: 501 is for what nobody knows; what is known and has no place here is the router's 405. CONNECT is
    # for proxies, and what follows it is no HTTP.
    if method not in _METHODS:
        raise BadRequest(501, "the method is not implemented")
    _target(method, target, limits)
    section = read(rest, version, limits)
    if not target.startswith(b"/") and section.host is not None:
        # RFC 9112 3.2.2: Host repeats the target's authority. If it does not, somebody on the way was misled.
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute and absolute[1].lower() != section.host.lower():
            raise BadRequest(400, "the Host field differs from the request target")
    return Head(method, target, version, raw, *section)


class HeadMemo:
    """Heads already read, by their exact bytes: a keep-alive client repeats itself. And their fields apart, since one
    that asks for something else each time still says the same of itself.

    Bounded in entries and in the size of each, so at most 2 MiB of raw heads with the defaults; the oldest goes first.
    Only heads that were found good are kept.

    Args:
        limits: the bounds that all heads in it obey.
        entries: how many are kept; 0 keeps none.
        size: the longest head that is kept, in bytes.
    """

    def __init__(self, limits: Limits, *, entries: int = 512, size: int = 2048) -> None:
        self._limits = limits
        self._entries = entries
        self._size = size
        self._heads: dict[bytes, Head] = {}
        self._sections: dict[tuple[bytes, tuple[int, int]], Section] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def read(self, raw: bytes) -> Head:
        """Return the head that `raw` is; see `parse_head`.

        Raises:
            BadRequest: as `parse_head` does.
        """
        head = self._heads.get(raw)
        if head is None:
            head = parse_head(raw, self._limits, self._section)
            self._keep(self._heads, raw, head, len(raw))
        return head

    def known(self, raw: bytes) -> Head | None:
        """Return the head that `raw` is if that takes no more than a look at its request line, else None.

        Its fields have come before, so they were found good, with whatever is not allowed in them.
        """
        head = self._heads.get(raw)
        if head is None:
            try:
                head = parse_head(raw, self._limits, self._met)
            except (BadRequest, KeyError):
                return None
        return head if head.target.startswith(b"/") else None

    def _met(self, raw: bytes, version: tuple[int, int], limits: Limits) -> Section:
        return self._sections[raw, version]

    def _section(self, raw: bytes, version: tuple[int, int], limits: Limits) -> Section:
        section = self._sections.get((raw, version))
        if section is None:
            section = parse_section(raw, version, limits)
            self._keep(self._sections, (raw, version), section, len(raw))
        return section

    def _keep(self, kept: dict[K, V], key: K, value: V, size: int) -> None:
        if self._entries and size <= self._size:
            if len(kept) >= self._entries:
                del kept[next(iter(kept))]
            kept[key] = value
