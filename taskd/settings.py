"""Kinds of settings: how a text becomes a value, which values there are, and how documentation shows them.

A value comes as a text (from a flag or a variable), as TOML has it, or from Python; one `read` takes them all, and
raises `ValueError` with the end of a sentence that begins with the setting's name. What it says never repeats a
secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Kind(Protocol):
    """Reads one setting's value."""

    @property
    def range(self) -> str:
        """Which values there are, for people."""

    def read(self, raw: object) -> Any:
        """Return the value; raise `ValueError` saying what it must be."""


class Address(NamedTuple):
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` counts as reachable."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def shown(raw: object) -> str:
    """Return a wrong value as it is shown: on one line, and not at length."""
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."


class Text(NamedTuple):
    """A text that matches `pattern` as a whole."""

    range: str
    pattern: str = r"[^\x00-\x1f\x7f]+"

    def read(self, raw: object) -> str:
        if not isinstance(raw, str) or not re.fullmatch(self.pattern, raw):
            raise ValueError(f"must be {self.range}, not {shown(raw)}")
        return raw


class Choice(NamedTuple):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def range(self) -> str:
        return ", ".join(f"`{word}`" for word in self.words)

    def read(self, raw: object) -> str:
        if raw not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}, not {shown(raw)}")
        return str(raw)


class Integer(NamedTuple):
    """A whole number."""

    least: int
    most: int

    @property
    def range(self) -> str:
        return f"{self.least} to {self.most}"

    def read(self, raw: object) -> int:
        # int() would take spaces, underscores and other scripts' digits.
        value = int(raw) if isinstance(raw, str) and re.fullmatch("-?[0-9]{1,18}", raw, re.ASCII) else raw
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise ValueError(f"must be a whole number from {self.least} to {self.most}, not {shown(raw)}")
        return value


class Number(NamedTuple):
    """A number; with `off`, that word stands for None."""

    least: float
    most: float
    off: bool = False

    @property
    def range(self) -> str:
        return f"{self.least:g} to {self.most:g}" + (", or `off`" if self.off else "")

    def read(self, raw: object) -> float | None:
        if self.off and (raw is None or raw == "off"):
            return None
        value = raw
        if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", raw, re.ASCII):
            value = float(raw)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._holds(value):
            off = ", or off" if self.off else ""
            raise ValueError(f"must be a number from {self.least:g} to {self.most:g}{off}, not {shown(raw)}")
        return float(value)

    def _holds(self, value: float) -> bool:
        return math.isfinite(value) and self.least <= value <= self.most


class Listen(NamedTuple):
    """An address to listen on; with `off`, that word stands for None."""

    off: bool = False

    @property
    def range(self) -> str:
        return "`host:port` or `[ipv6]:port`; port 0: any that is free" + ("; `off`: not at all" if self.off else "")

    def read(self, raw: object) -> Address | None:
        if self.off and (raw is None or raw == "off"):
            return None
        if isinstance(raw, Address):
            raw = str(raw)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/@]+)):([0-9]{1,5})", str(raw), re.ASCII)
        if match is None or int(match[3]) > 65535:
            off = ", or off" if self.off else ""
            raise ValueError(f"must be host:port with a port up to 65535{off}, not {shown(raw)}")
        return Address(match[1] or match[2], int(match[3]))


class Url(NamedTuple):
    """A URL of one of a few schemes. It may hold a password, so no message repeats it."""

    schemes: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        return ", ".join([*(f"`{word}`" for word in self.words), *(f"`{scheme}://…`" for scheme in self.schemes)])

    def read(self, raw: object) -> str:
        if isinstance(raw, str) and raw in self.words:
            return raw
        if not isinstance(raw, str) or not raw.startswith(tuple(f"{scheme}://" for scheme in self.schemes)):
            wanted = [*self.words, *(f"{scheme}://…" for scheme in self.schemes)]
            raise ValueError(f"must be {' or '.join(wanted)}")
        if not raw.isprintable() or " " in raw:
            raise ValueError("must not contain spaces or control characters: write them as %20 and the like")
        try:
            hosts = urllib.parse.urlsplit(raw).netloc.rpartition("@")[2]
            # PostgreSQL takes several hosts. Reading a port also checks it.
            _ = [urllib.parse.urlsplit(f"//{host}").port for host in hosts.split(",")]
        except ValueError:
            raise ValueError("must have a host and a port that can be read") from None
        return raw


class File(NamedTuple):
    """A path; `~` is the home directory."""

    range: str = "a path"

    def read(self, raw: object) -> Path:
        if not isinstance(raw, str | Path) or not str(raw) or "\0" in str(raw):
            raise ValueError(f"must be a path, not {shown(raw)}")
        return Path(raw).expanduser()


class Several(NamedTuple):
    """Several values of one kind: separated by commas, as a list in TOML, or by repeating the flag."""

    kind: Text

    @property
    def range(self) -> str:
        return f"{self.kind.range}; several with commas"

    def read(self, raw: object) -> tuple[str, ...]:
        pieces: Sequence[object] = [raw] if isinstance(raw, str) else raw if isinstance(raw, list | tuple) else ()
        if not pieces and raw not in ([], ()):
            raise ValueError(f"must be {self.kind.range}, or a list of such, not {shown(raw)}")
        words: list[object] = []
        for piece in pieces:
            words += [word.strip() for word in piece.split(",")] if isinstance(piece, str) else [piece]
        return tuple(dict.fromkeys(self.kind.read(word) for word in words))


class Secret(NamedTuple):
    """What nobody is to see: no message repeats it, and neither does `repr`."""

    range: str
    pattern: str

    def read(self, raw: object) -> str:
        if not isinstance(raw, str) or not re.fullmatch(self.pattern, raw):
            raise ValueError(f"must be {self.range}")
        return raw


class Networks(NamedTuple):
    """Addresses and networks, as text with commas between, or as a list."""

    range: str = "addresses or networks such as 10.0.0.0/8, with commas between"

    def read(self, raw: object) -> tuple[Network, ...]:
        pieces = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list | tuple) else [raw]
        try:
            return tuple(ipaddress.ip_network(str(piece).strip()) for piece in pieces)
        except ValueError:
            raise ValueError(f"must be {self.range}, not {shown(raw)}") from None


class Bounds(NamedTuple):
    """Numbers above zero that grow: as text with commas between, or as a list."""

    most: int

    @property
    def range(self) -> str:
        return f"1 to {self.most} numbers above 0 that grow, with commas between"

    def read(self, raw: object) -> tuple[float, ...]:
        pieces = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list | tuple) else ()
        number = Number(1e-6, 1e9)
        try:
            read = [number.read(piece.strip() if isinstance(piece, str) else piece) for piece in pieces]
        except ValueError:
            read = []
        bounds = tuple(bound for bound in read if bound is not None)
        if not 1 <= len(bounds) <= self.most or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"must be {self.range}, not {shown(raw)}")
        return bounds
