"""The dashboard: whole, laid out, and about metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.programs import needs
from tests.deploy.promql import FAMILIES, faults, names

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in SHOWN for target in panel["targets"]]

WIDTH = 24
"""Columns of Grafana's grid."""

VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$job": "taskd"}

NOT_SHOWN = {"process_virtual_memory_bytes"}
"""Tells nothing that anybody would act on."""


def _cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return set(itertools.product(columns, rows))


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap_and_fit_the_grid() -> None:
    for one, other in itertools.combinations(PANELS, 2):
        assert not _cells(one) & _cells(other), (one["title"], other["title"])
    assert {column for panel in PANELS for column, _ in _cells(panel)} == set(range(WIDTH))


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == chosen
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"] == chosen
        assert target["expr"].strip()
        assert list(faults(target["expr"])) == []
        # Whoever looks at one process, or at one of two installations, sees that one.
        selectors = re.findall(r"\b(?:(?:taskd|process)_\w+|up)(\{[^}]*\})?", target["expr"])
        assert all('job="$job", instance=~"$instance"' in selector for selector in selectors), target["expr"]


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_are_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
        whole = not re.search(r"\b(sum|max|min|count)\b", target["expr"])
        left = {"instance"} if whole else {word.strip() for word in (grouped[1] if grouped else "").split(",")}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_what_is_the_same_in_every_process_is_not_added_up() -> None:
    for query in QUERIES:
        if re.search(r"taskd_tasks\{|taskd_queue_oldest", query):
            assert re.match(r"max( by \(status\))? ?\(", query), query


def test_each_metric_is_shown() -> None:
    shown = {name for query in QUERIES for name in names(query)}
    assert FAMILIES.keys() - shown == NOT_SHOWN


def test_variables_choose_the_data_source_and_the_instances() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert variables["instance"]["multi"]
    assert variables["instance"]["includeAll"]
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(QUERIES)))
    assert used == {"job", "instance"}


def test_it_does_not_depend_on_the_grafana_that_it_was_made_in() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "taskd"
    assert DASHBOARD["schemaVersion"] >= 39
    assert "__inputs" not in DASHBOARD


@needs("promtool")
def test_each_query_can_be_read(tmp_path: Path) -> None:
    queries = list(QUERIES)
    for name, value in VARIABLES.items():
        queries = [query.replace(name, value) for query in queries]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_grafana_is_told_of_the_data_source_and_of_the_dashboard() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    interval = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text())["providers"]
    assert provider["type"] == "file"
