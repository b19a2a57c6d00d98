"""No test is skipped for want of a program where `.ci/run` has run."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.programs import PACKAGES

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ROOT / ".ci" / "run"


def looked_for() -> Iterator[str]:
    """Yield the programs that tests look for on PATH."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in ("which", "needs"):
                    yield str(node.args[0].value)


def test_each_program_that_tests_look_for_is_listed() -> None:
    assert {*looked_for()} <= PACKAGES.keys()
    assert {*looked_for()} & PACKAGES.keys()


def test_the_check_installs_each() -> None:
    installed = dict(re.findall(r"\b([\w-]+):([\w-]+)\b", RUN.read_text("utf-8")))
    assert installed.items() >= PACKAGES.items()


def put(folder: Path, name: str, script: str = "") -> None:
    """Write a program."""
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with next to nothing: no Python, so the check ends once it has seen to the programs.

    `sudo` writes down what it was asked to run, and runs nothing.
    """
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    put(tmp_path, "id", "echo 1000")
    put(tmp_path, "apt-get")
    put(tmp_path, "sudo", f'printf "%s\\n" "$@" >>"{tmp_path}/asked"')
    return tmp_path


def run(machine: Path) -> str:
    """Run the check up to its end for want of Python, and return what it says."""
    ended = subprocess.run([RUN], env={"PATH": str(machine)}, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("no Python")
    return ended.stderr


def asked(machine: Path) -> list[str]:
    """Return the words that `sudo` was called with, the script of many lines in between."""
    path = machine / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_what_is_missing_is_installed(machine: Path) -> None:
    put(machine, "redis-server")
    assert "skipped" not in run(machine)
    words = asked(machine)
    assert words[:3] == ["-n", "bash", "-c"]
    assert any("--no-install-recommends" in word for word in words)
    # Two programs of one package.
    others = ["pgbouncer", "prometheus", "nodejs", "npm", "binutils", "wrk", "chromium"]
    assert words[-8:] == ["bash", *others]
    (machine / "redis-server").unlink()
    run(machine)
    assert asked(machine)[-9:] == ["bash", "redis-server", *others]


def test_nothing_is_installed_where_all_is_there(machine: Path) -> None:
    for program in PACKAGES:
        put(machine, program)
    run(machine)
    assert asked(machine) == []


def test_it_goes_on_where_there_is_no_apt_get(machine: Path) -> None:
    (machine / "apt-get").unlink()
    packages = "redis-server pgbouncer prometheus nodejs npm binutils wrk chromium"
    assert f"not installed: {packages}; tests that need them are skipped" in run(machine)
    assert asked(machine) == []


def test_it_goes_on_where_it_may_not_install(machine: Path) -> None:
    put(machine, "sudo", "exit 1")
    assert "tests that need them are skipped" in run(machine)
    (machine / "sudo").unlink()
    assert "tests that need them are skipped" in run(machine)


def test_packages_do_not_start_their_services(machine: Path) -> None:
    policy = machine / "policy"
    put(machine, "apt-get", f'cat "{policy}" >>"{machine}/policies"')
    for name in ("cat", "chmod", "rm"):
        (machine / name).symlink_to(shutil.which(name) or name)
    put(machine, "sudo", f'exec bash -c "${{4//\\/usr\\/sbin\\/policy-rc.d/{policy}}}" bash')
    assert "skipped" not in run(machine)
    # Debian's invoke-rc.d(8): 101 forbids it. Once while the lists are read, once while packages are installed.
    assert (machine / "policies").read_text() == 2 * "#!/bin/sh\nexit 101\n"
    assert not policy.exists()
    put(machine, "policy", "exit 0")
    run(machine)
    assert policy.exists()
