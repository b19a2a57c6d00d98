"""Programs that some tests need and Python's packages don't bring: skipped where they are not, installed by .ci/run."""

from __future__ import annotations

import shutil

import pytest

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "pgbouncer": "pgbouncer",
    "node": "nodejs",
    "npm": "npm",
    "strip": "binutils",
    "wrk": "wrk",
    "chromium": "chromium",
}
"""Each program, and the package that has it in Debian; `wrk` is for the benchmark in miniature."""


def needs(program: str) -> pytest.MarkDecorator:
    """Mark a test as skipped, with the reason, where a program of `PACKAGES` is not on PATH."""
    reason = f"{program} is not here; Debian has it in the package {PACKAGES[program]}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)
