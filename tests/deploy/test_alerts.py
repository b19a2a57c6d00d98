"""Prometheus' configuration and its alerts: read by promtool, tested by it, and about metrics that there are."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.programs import needs
from tests.deploy.promql import FAMILIES, faults

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
TESTS = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
NAMES = [rule["alert"] for rule in RULES]

WANTED = {"TaskdNoWorker", "TaskdQueueOld", "TaskdTasksFailing", "TaskdEventLoopLag", "TaskdCacheDown", "TaskdAbsent"}


@needs("promtool")
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    ended = subprocess.run(["promtool", *words], cwd=DEPLOY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_alerts_that_nobody_should_miss_are_there() -> None:
    assert set(NAMES) >= WANTED
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert list(faults(rule["expr"])) == []


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_what_to_look_at(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Taskd")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.search(r"\b[Ll]ook\b|/readyz|raise the limit", rule["annotations"]["description"])


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_speaks_only_of_labels_that_it_has(rule: dict[str, Any]) -> None:
    spoken = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    if "absent(" in rule["expr"]:
        left: set[str] = set()
    else:
        left = {"job", "instance"} if grouped is None else {name.strip() for name in grouped[1].split(",")}
    assert spoken <= left


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_is_tested_on_both_sides_and_before_its_time(rule: dict[str, Any]) -> None:
    asked = [
        (case["expr"], str(case["exp_samples"]))
        for group in TESTS
        for case in group["promql_expr_test"]
        if rule["alert"] in re.findall(r"Taskd\w+", f"{case['expr']} {case['exp_samples']}")
    ]
    found = " ".join(samples for _, samples in asked)
    states = set(re.findall(rf'alertname="{rule["alert"]}",alertstate="(\w+)"', found))
    assert states == ({"firing", "pending"} if "for" in rule else {"firing"})
    assert any(rule["alert"] in expression and samples == "[]" for expression, samples in asked)


def test_every_connection_that_the_pool_may_open_is_busy_when_it_is_called_exhausted() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "TaskdDatabasePoolExhausted")
    opened = [
        ast.literal_eval(keyword.value)
        for path in (ROOT / "taskd").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Database"
        for keyword in node.keywords
        if keyword.arg == "max_size"
    ]
    # The others are for the lease alone, and are not told of.
    assert int(rule["expr"].rpartition(">=")[2]) == max(opened)


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("taskd_task", "there is no taskd_task"),
        ("rate(taskd_tasks_created[5m])", "there is no taskd_tasks_created"),
        ("taskd_task_wait_seconds", "there is no taskd_task_wait_seconds"),
        ("taskd_tasks_count", "there is no taskd_tasks_count"),
        ('taskd_tasks{kind="x"}', "taskd_tasks has no label kind"),
        ('taskd_tasks{job="a", status="ready"}', "taskd_tasks is never status='ready'"),
        ('taskd_tasks{status!~"done|ended"}', "taskd_tasks is never status='ended'"),
        ("sum by (kind) (taskd_tasks)", "nothing here has the label kind"),
        ("sum by (le) (taskd_tasks)", "nothing here has the label le"),
        ("max(process_cpu_seconds)", "there is no process_cpu_seconds"),
    ],
)
def test_a_query_for_what_there_is_not_is_noticed(query: str, fault: str) -> None:
    assert list(faults(query)) == [fault]


@pytest.mark.parametrize("path", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name)
def test_queries_in_the_documentation_ask_for_what_there_is(path: Path) -> None:
    text = path.read_text("utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
    spans: list[str] = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    # The name of a whole histogram is no query, and may be spoken of.
    queries = [query for query in (*lines, *spans) if query not in FAMILIES]
    assert [fault for query in queries for fault in faults(query)] == []
