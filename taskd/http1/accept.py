"""Choosing what to answer with: Accept and Accept-Encoding (RFC 9110 12.4 and 12.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # RFC 9110 12.4.2
_IDENTITY = "identity"
_LEAST = 0.0001  # below every weight that can be written, and not zero


class _Range(NamedTuple):
    name: str
    parameters: frozenset[tuple[str, str]]
    weight: float


def best(header: bytes | None, offered: Sequence[str]) -> str | None:
    """Return the one of `offered` that the client likes best, or None if it takes none of them.

    The most specific range that fits decides on an offer's weight; of equal weights the first offered wins. An element
    that can't be read is passed over. `identity`, as a coding, is acceptable unless refused (RFC 9110 12.5.3).

    Args:
        header: value of `Accept` or `Accept-Encoding`; None or empty: the client takes anything, which for codings
            means that `identity` is chosen where it is offered.
        offered: media types (`text/plain; version=0.0.4`) or codings (`gzip`), the server's favourite first.
    """
    if header == b"*/*":
        # Nearly all that is not a browser says so.
        return next(iter(offered), None)
    ranges = _ranges(header.decode("latin-1").lower()) if header else []
    if not ranges:
        return _IDENTITY if _IDENTITY in offered else next(iter(offered), None)
    chosen, most = None, 0.0
    for offer in offered:
        weight = _weight(offer, ranges)
        if weight > most:
            chosen, most = offer, weight
    return chosen


def _ranges(header: str) -> list[_Range]:
    ranges = []
    for element in header.split(","):
        name, *rest = (part.strip(" \t") for part in element.split(";"))
        parameters, weight = [], 1.0
        for parameter in rest:
            key, _, value = (part.strip(" \t") for part in parameter.partition("="))
            if key == "q":
                weight = float(value) if _WEIGHT.fullmatch(value) else -1.0
                break  # RFC 9110 12.5.1: what follows the weight is no parameter of the range
            if key:
                parameters.append((key, value.strip('"')))
        if name and weight >= 0:
            ranges.append(_Range(name, frozenset(parameters), weight))
    return ranges


def _weight(offer: str, ranges: list[_Range]) -> float:
    wanted = _ranges(offer.lower())[0]
    kind = wanted.name.partition("/")[0]
    found, rank = (_LEAST if offer == _IDENTITY else 0.0), (-1, -1)
    for name, parameters, weight in ranges:
        if name == wanted.name:
            closeness = 2
        elif name == f"{kind}/*":
            closeness = 1
        elif name in ("*/*", "*"):
            closeness = 0
        else:
            continue
        if parameters <= wanted.parameters and (closeness, len(parameters)) > rank:
            found, rank = weight, (closeness, len(parameters))
    return found
