"""docs/limits.md is true of what can be checked by name: every constant and every setting in it is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from taskd.config import SETTINGS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "limits.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!What|---)(.*) \|$", PAGE, re.MULTILINE)
NAMES = sorted(set(re.findall(r"`([a-z0-9_]+(?:\.[A-Za-z0-9_]+)+)`", PAGE)) - {"module.NAME"})


def found(name: str) -> object:
    """Return what a dotted name stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(["taskd", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            # A default of a dataclass is an attribute of the class.
            value = getattr(value, part)
        return value
    raise AttributeError(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_is_there(name: str) -> None:
    found(name)


def test_every_setting_is_there_and_has_its_default() -> None:
    variables = {setting.variable: setting.default for setting in SETTINGS.values()}
    for name in re.findall(r"`(TASKD_[A-Z_]+)`", PAGE):
        assert name in variables, name
    for name, shown in (("TASKD_CONCURRENCY", "16"), ("TASKD_RETENTION_DAYS", "30"), ("TASKD_CACHE_ENTRIES", "10000")):
        assert variables[name] == shown


def test_each_row_says_where_the_limit_is_set() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        cells = row.split(" | ")
        assert len(cells) == 4, row
        assert all(cell.strip() for cell in cells[:2]), row


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service.auth.FAILURES_AT_ONCE", 20),
        ("service.auth.FAILURES", 1),
        ("service.auth.BELIEVED", 2),
        ("service.auth.LOOK_EVERY", 2),
        ("rpc.peers.MOST_HELD_BY_ALL", 128 << 20),
        ("rpc.peers.MOST_STREAMS", 10_000),
        ("rpc.calls.MOST_OPEN", 1000),
        ("rpc.watch.BEHIND", 1 << 20),
        ("ws.wire.BEHIND", 1 << 20),
        ("ws.registry.MAX_SOCKETS", 10_000),
        ("web.server.MAX_CONNECTIONS", 10_000),
        ("domain.forms.MAX_PAYLOAD", 256 << 10),
        ("domain.forms.MAX_BATCH", 1000),
        ("worker.result.MAX_RESULT", 1 << 20),
        ("store.pool.COMMAND_TIMEOUT", 30),
    ],
)
def test_the_numbers_that_users_count_on_are_these(name: str, value: float) -> None:
    assert found(name) == value
