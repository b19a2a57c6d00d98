"""docker-compose.yml: what it starts, reachable from this machine only, in versions that don't change by themselves."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskd import __version__
from taskd.cli import health
from taskd.config import Settings, load, validate_start
from taskd.front import ANSWER_WITHIN

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}

each = pytest.mark.parametrize("name", SERVICES)
ours = pytest.mark.parametrize("name", sorted(OURS))


def settings_of(name: str) -> Settings:
    """Return the settings of a taskd, as it reads them from what Compose gives it."""
    environment = {
        variable: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for variable, value in SERVICES[name]["environment"].items()
    }
    return load({}, environment)


def mounts(name: str) -> list[tuple[str, str, str]]:
    """Return what a service mounts: from where, to where, and how."""
    parts = [entry.split(":") for entry in SERVICES[name].get("volumes", [])]
    return [(source, target, "".join(how)) for source, target, *how in parts]


def test_it_starts_what_taskd_stands_on_and_what_watches_it() -> None:
    assert SERVICES.keys() - OURS == {"postgres", "redis", "prometheus", "grafana"}
    assert "version" not in COMPOSE


def test_taskd_itself_is_started_only_by_its_profile() -> None:
    assert {"gateway", "api", "worker-1", "worker-2"} == OURS
    for name, service in SERVICES.items():
        assert service.get("profiles") == (["cluster"] if name in OURS else None)
    assert "docker compose --profile cluster up" in TEXT


@ours
def test_a_taskd_is_of_this_version_and_may_do_nothing_that_it_need_not(name: str) -> None:
    service = SERVICES[name]
    assert (service["image"], service["build"]) == (f"taskd:{__version__}", ".")
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


@ours
def test_its_settings_are_good_together(name: str) -> None:
    settings = settings_of(name)
    validate_start(settings)
    assert settings.role == name.partition("-")[0]
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.shutdown_seconds + ANSWER_WITHIN


@ours
def test_its_health_check_is_a_command_of_taskd(name: str) -> None:
    words = SERVICES[name]["healthcheck"]["test"]
    assert words[:4] == ["CMD", "python", "-m", "taskd"]
    parser = argparse.ArgumentParser()
    health.add_arguments(parser)
    assert words[4] == "health"
    parser.parse_args(words[5:])


def test_they_find_one_another() -> None:
    found = {name: settings_of(name) for name in OURS}
    assert found["gateway"].upstream == str(found["api"].grpc)
    # On one network: nobody takes another's address.
    assert len({str(settings.http) for settings in found.values()}) == len(OURS)
    environment = SERVICES["postgres"]["environment"]
    user, password = environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]
    for name in OURS - {"gateway"}:
        url = SERVICES[name]["environment"]["TASKD_DATABASE_URL"]
        assert url == f"postgresql://{user}:{password}@127.0.0.1:5432/{environment['POSTGRES_DB']}"
        assert SERVICES[name]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [str(found["gateway"].http)]}]


@each
def test_an_image_is_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\w+)?", tag)


@each
def test_a_service_is_reachable_from_this_machine_only(name: str) -> None:
    service = SERVICES[name]
    if service.get("network_mode") == "host":
        assert "ports" not in service
        bound = " ".join([*service.get("command", []), *service.get("environment", {}).values()])
        assert "127.0.0.1" in bound
        assert "0.0.0.0" not in bound
    else:
        assert service["ports"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@each
def test_a_service_says_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check.keys() >= {"interval", "timeout", "retries", "start_period"}


@each
def test_what_is_mounted_exists(name: str) -> None:
    for source, _, how in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).is_file()
            assert how == "ro"
        else:
            assert source in COMPOSE["volumes"]


def test_each_volume_is_used() -> None:
    assert {source for name in SERVICES for source, _, _ in mounts(name)} >= COMPOSE["volumes"].keys()


def test_the_database_is_kept_where_its_image_has_it() -> None:
    # Below 18 it was /var/lib/postgresql/data.
    assert SERVICES["postgres"]["image"].startswith("postgres:18.")
    assert [target for _, target, _ in mounts("postgres")] == ["/var/lib/postgresql"]


def test_the_cache_keeps_nothing_and_makes_room() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert options["--maxmemory"]
    assert not mounts("redis")


def test_prometheus_and_grafana_find_their_files() -> None:
    targets = {target for _, target, _ in mounts("prometheus")}
    assert "--config.file=/etc/taskd/prometheus.yml" in SERVICES["prometheus"]["command"]
    assert targets >= {"/etc/taskd/prometheus.yml", "/etc/taskd/alerts.yml"}
    found = {target for _, target, _ in mounts("grafana")}
    (provider,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "dashboards.yml").read_text())["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in found
    assert str(Path(home).parent) == provider["options"]["path"]
    (source,) = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasource.yml").read_text())["datasources"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in SERVICES["prometheus"]["command"]


def test_the_command_that_it_gives_reaches_what_it_starts() -> None:
    comment = " ".join(line.removeprefix("#").strip().rstrip("\\") for line in TEXT.splitlines() if line[:1] == "#")
    found = re.search(r"TASKD_DATABASE_URL=postgresql://(\w+):(\w+)@([\d.:]+)/(\w+)", comment)
    assert found is not None
    environment = SERVICES["postgres"]["environment"]
    assert (found[1], found[4]) == (environment["POSTGRES_USER"], environment["POSTGRES_DB"])
    assert environment["POSTGRES_PASSWORD"] == f"${{POSTGRES_PASSWORD:-{found[2]}}}"
    assert f"{found[3]}:5432" in SERVICES["postgres"]["ports"]
    assert "TASKD_CACHE=redis://127.0.0.1:6379 " in comment
    assert "127.0.0.1:6379:6379" in SERVICES["redis"]["ports"]
