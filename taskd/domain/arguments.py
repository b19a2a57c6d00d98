"""Keyword arguments of a program, in the form a client's JSON or URL has, so that one set of checks does for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from taskd.domain.codec import dump_json, format_time, read_json
from taskd.errors import Fault, Invalid


def plain(fields: Mapping[str, Any]) -> Any:
    """Return the fields as a client's JSON would have them; raises `Invalid` for what has no form there."""
    dated = {name: format_time(value) if isinstance(value, datetime) else value for name, value in fields.items()}
    try:
        return read_json(dump_json(dated).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid([Fault("payload", f"has no form in JSON: {error}")]) from None


def pairs(query: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a query as the parameters of a URL would have it, one for each value of a list."""
    for name, value in query.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, bool):
                yield name, str(one).lower()
            else:
                yield name, format_time(one) if isinstance(one, datetime) else str(one)
