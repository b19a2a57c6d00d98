"""What the kernel knows of the process."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from taskd.metrics import process
from taskd.metrics.registry import Registry


@pytest.fixture
def numbers() -> dict[str, float]:
    registry = Registry()
    process.register(registry)
    return {family.name: series.value for family in registry.families for series in family.series().values()}


def test_memory_files_and_times_are_those_of_this_process(numbers: dict[str, float]) -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    resident = int(status["VmRSS"].split()[0]) * 1024
    assert resident / 2 < numbers["process_resident_memory_bytes"] < resident * 2
    assert numbers["process_virtual_memory_bytes"] > numbers["process_resident_memory_bytes"]
    assert abs(numbers["process_open_fds"] - len(os.listdir("/proc/self/fd"))) <= 2
    assert numbers["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 0 < numbers["process_cpu_seconds_total"] <= time.process_time()


def test_the_start_is_when_the_process_began(numbers: dict[str, float]) -> None:
    # Seconds since boot, both; the kernel tells the time of boot in whole seconds.
    ticks = int(Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()[19])
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    assert numbers["process_start_time_seconds"] == pytest.approx(time.time() - ago, abs=2)


def test_where_the_kernel_tells_nothing_little_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "_PROC", tmp_path)
    registry = Registry()
    process.register(registry)
    assert [family.name for family in registry.families] == ["process_cpu_seconds_total", "process_start_time_seconds"]
