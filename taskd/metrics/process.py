"""What the kernel knows of this process, under the names that all Prometheus clients use.

Source: Prometheus, "Writing client libraries", "Process metrics". Where there is no /proc (not on Linux), CPU time and
start are all that is told.
"""

from __future__ import annotations

import os
import resource
import time
from functools import cache
from pathlib import Path

from taskd.metrics.registry import Registry

_PROC = Path("/proc/self")
_BEGUN = time.time()
_PAGE = resource.getpagesize()


def register(registry: Registry) -> None:
    """Add the `process_*` families."""
    cpu = registry.counter("process_cpu_seconds_total", "Processor time of the process, user and system.")
    cpu.track(time.process_time)
    begun = registry.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.")
    begun.track(_started)
    if not (_PROC / "stat").exists():
        return
    virtual = registry.gauge("process_virtual_memory_bytes", "Address space of the process.")
    virtual.track(lambda: _pages()[0] * _PAGE)
    resident = registry.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.")
    resident.track(lambda: _pages()[1] * _PAGE)
    registry.gauge("process_open_fds", "Open files and sockets.").track(_open_files)
    limit = registry.gauge("process_max_fds", "Files and sockets that may be open at once.")
    limit.track(_most_files)


@cache
def _started() -> float:
    try:
        # Field 22 of stat, in ticks since boot; the second field is in parentheses and may hold anything.
        ticks = int((_PROC / "stat").read_text("utf-8").rpartition(")")[2].split()[19])
        boot = next(
            line.split()[1] for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith("btime")
        )
        return int(boot) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return _BEGUN


def _pages() -> tuple[int, int]:
    try:
        virtual, resident, *_ = map(int, (_PROC / "statm").read_text("utf-8").split())
    except (OSError, ValueError):
        return 0, 0
    return virtual, resident


def _open_files() -> float:
    try:
        # Linux 6.2 and newer tell the number as the size; listing ten thousand sockets would take milliseconds.
        return float(os.stat(_PROC / "fd").st_size or len(os.listdir(_PROC / "fd")))
    except OSError:
        return 0.0


def _most_files() -> float:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if most == resource.RLIM_INFINITY else float(most)
