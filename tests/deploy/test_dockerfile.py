"""The Dockerfile: what it says, and its steps done here, in a bare environment, to see that what comes out runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskd import __version__
from taskd.cli import health
from taskd.config import Settings
from tests.deploy.programs import needs

ROOT = Path(__file__).resolve().parent.parent.parent


def read(path: Path) -> list[list[tuple[str, str]]]:
    """Return the stages of a Dockerfile, each as its instructions: their names, and what they say."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if name:
            stages[-1].append((name, rest.strip()))
    return stages


BUILD, IMAGE = read(ROOT / "Dockerfile")


def said(stage: list[tuple[str, str]], name: str) -> list[str]:
    """Return what the instructions of one name say."""
    return [rest for instruction, rest in stage if instruction == name]


def test_both_stages_have_the_same_python() -> None:
    (built,), (runs,) = said(BUILD, "FROM"), said(IMAGE, "FROM")
    # What is compiled, and the wheels, are of one version.
    assert built == f"{runs} AS build"
    found = re.fullmatch(r"python:(3\.\d+)-slim", runs)
    assert found is not None
    assert f"Programming Language :: Python :: {found[1]}" in (ROOT / "setup.cfg").read_text()


def test_it_runs_as_nobody_in_particular_and_hears_the_signal_to_stop() -> None:
    (user,) = said(IMAGE, "USER")
    # By number: Kubernetes can't tell whether a name is root.
    assert re.fullmatch(r"(\d{5}):\1", user)
    assert f"--uid {user.partition(':')[0]} " in " ".join(said(IMAGE, "RUN"))
    assert IMAGE.index(("USER", user)) > max(n for n, (name, _) in enumerate(IMAGE) if name in ("RUN", "COPY"))
    assert said(IMAGE, "STOPSIGNAL") == ["SIGTERM"]
    # Through a shell, no signal would reach it.
    assert json.loads(said(IMAGE, "ENTRYPOINT")[0]) == ["python", "-m", "taskd"]
    assert json.loads(said(IMAGE, "CMD")[0]) == ["serve"]


def test_its_health_check_is_a_command_of_taskd() -> None:
    (check,) = said(IMAGE, "HEALTHCHECK")
    words = json.loads(check.partition(" CMD ")[2])
    assert words[:4] == ["python", "-m", "taskd", "health"]
    parser = argparse.ArgumentParser()
    health.add_arguments(parser)
    assert parser.parse_args(words[4:]).live
    timeout = re.search(r"--timeout=(\d+)s", check)
    assert timeout is not None
    assert int(timeout[1]) > health.ANSWER_WITHIN


def test_it_says_what_it_is() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', said(IMAGE, "LABEL")[0]))
    assert labels.keys() == {"title", "description", "version", "licenses"}
    setup = (ROOT / "setup.cfg").read_text()
    assert f"description = {labels['description']}\n" in setup
    assert f"license = {labels['licenses']}\n" in setup
    assert labels["version"] == __version__
    assert f"docker build -t taskd:{__version__} ." in (ROOT / "Dockerfile").read_text()
    settings = Settings()
    assert settings.grpc is not None
    assert said(IMAGE, "EXPOSE") == [f"{settings.http.port} {settings.grpc.port}"]


def copied() -> list[str]:
    """Return what is copied from the checkout."""
    return [word for rest in said(BUILD, "COPY") for word in rest.split()[:-1]]


def test_nothing_is_sent_to_the_builder_that_it_does_not_copy() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert lines[1:-1] == [f"!{name}" for name in sorted(copied())]
    assert lines[-1] == "**/__pycache__"


@dataclass
class Image:
    """What the steps leave: the folder that the image has, and the Python that runs it."""

    app: Path
    python: Path
    variables: Mapping[str, str]

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as the entry point would."""
        return subprocess.run(
            [self.python, *words], env={**self.variables, **variables}, cwd="/", capture_output=True, text=True
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Do the steps, but for the installing of system packages and the making of users."""
    folder = tmp_path_factory.mktemp("image")
    work, app, venv = folder / "build", folder / "app", folder / "venv"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TASKD", "PYTHON", "COV"))}
    environment["PATH"] = f"{venv / 'bin'}:{environment['PATH']}"
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, work / name)
    environment["PYTHONPATH"] = ""
    for stage in (BUILD, IMAGE):
        for step in said(stage, "RUN"):
            if not step.startswith(("apt-get ", "useradd ")):
                here = re.sub(r"(?<![\w/])/app\b", str(app), step)
                done = subprocess.run(["sh", "-ec", here], cwd=work, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
        environment["PYTHONPATH"] = str(app)
    yield Image(app, venv / "bin" / "python", {**environment, "PYTHONDONTWRITEBYTECODE": "1"})
    shutil.rmtree(folder)


slow = pytest.mark.timeout(600)
"""Packages are fetched and installed."""


@slow
@needs("strip")
def test_it_has_what_runs_and_no_more(image: Image) -> None:
    left = {path.suffix for path in image.app.rglob("*") if path.is_file()}
    assert not left & {".pyx", ".pxd", ".pyi", ".h"}
    assert (image.app / "taskd" / "py.typed").is_file()
    assert not (image.app / "bin").exists()
    libraries = [path for path in image.app.rglob("*.so*") if path.is_file()]
    assert len(libraries) > 5
    assert [path.name for path in libraries if b".debug_info" in path.read_bytes()] == []
    compiled = {path.name.partition(".")[0] for path in image.app.rglob("*.pyc")}
    assert [path.name for path in image.app.rglob("*.py") if path.stem not in compiled] == []


@slow
@needs("strip")
def test_all_its_parts_can_be_loaded_and_nothing_else_is_needed(image: Image) -> None:
    code = """
import importlib, pkgutil, taskd
for module in pkgutil.walk_packages(taskd.__path__, "taskd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(taskd.__file__)
"""
    found = image.run("-c", code)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.strip() == str(image.app / "taskd" / "__init__.py")
    entry = json.loads(said(IMAGE, "ENTRYPOINT")[0])[1:]
    assert "serve" in image.run(*entry, "--help").stdout
    assert image.run(*entry, "--version").stdout == f"taskd {__version__}\n"


@slow
@needs("strip")
async def test_it_serves_is_well_and_ends_at_the_signal(image: Image, database_url: str) -> None:
    entry = json.loads(said(IMAGE, "ENTRYPOINT")[0])[1:]
    settings = {
        "TASKD_AUTH": "none", "TASKD_DATABASE_URL": database_url, "TASKD_HTTP": "127.0.0.1:0",
        "TASKD_GRPC": "127.0.0.1:0", "TASKD_LOG": "json", "TASKD_HANDLERS": "taskd.worker.samples",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        image.python, *entry, *json.loads(said(IMAGE, "CMD")[0]),
        env={**image.variables, **settings}, cwd="/", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = None
        while address is None:
            line = (await process.stderr.readline()).decode()
            assert line, "it ended at its start"
            address = re.search(r"http://([\d.]+:\d+)", line)
        check = json.loads(said(IMAGE, "HEALTHCHECK")[0].partition(" CMD ")[2])[1:]
        found = image.run(*check, TASKD_HTTP=address[1])
        assert (found.returncode, found.stderr) == (0, "")
        async with httpx.AsyncClient(base_url=f"http://{address[1]}") as client:
            answers: dict[str, Any] = {path: (await client.get(path)).status_code for path in ("/", "/openapi.json")}
        assert set(answers.values()) == {200}, answers
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
