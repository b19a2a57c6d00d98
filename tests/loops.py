"""Event loops that taskd serves on: asyncio's own, and uvloop where it is installed.

A `conftest.py` that imports the hook from here has each of its folder's tests run on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

Factory = Callable[[], asyncio.AbstractEventLoop]


def factories() -> dict[str, Factory]:
    """Return what makes each of them, by its name."""
    found: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return found
    return found | {"uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    return factories()
