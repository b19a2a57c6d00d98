"""Whether the process is fit to be sent work: the answers of its parts, collected."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taskd.service.ports import PartHealth

Probe = Callable[[], PartHealth]


class PartsHealth:
    """Asks each part; implements `ports.Health`.

    Probes answer from memory: readiness is asked for every second by machines, and must cost nothing.
    """

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}
        self._lifecycle = PartHealth(False, "starting")

    def add(self, name: str, probe: Probe) -> None:
        """Ask `probe` for the health of the part `name`."""
        self._probes[name] = probe

    def started(self) -> None:
        """Say that all parts run."""
        self._lifecycle = PartHealth(True, "running")

    def stopping(self) -> None:
        """Say that the process ends: not ready from now on."""
        self._lifecycle = PartHealth(False, "stopping")

    def ready(self) -> Mapping[str, PartHealth]:
        """Return each part's health."""
        return {"process": self._lifecycle, **{name: probe() for name, probe in self._probes.items()}}


def from_fault(fault: str | None, fine: str = "ok") -> PartHealth:
    """Return the health of a part that tells its fault, or None."""
    return PartHealth(True, fine) if fault is None else PartHealth(False, fault)
