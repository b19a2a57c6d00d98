import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from taskd import config
from taskd.config import SETTINGS, Settings, load, validate_start
from taskd.errors import ConfigError
from taskd.settings import Address

ROOT = Path(__file__).parent.parent
A_TOKEN = "tk_" + "0" * 43
SECRET = "postgresql://ann:s3cret@db.example/tasks"


def refused(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, toml: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ or {}, toml)
    assert str(caught.value).isprintable(), "one line"
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "taskd.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_defaults() -> None:
    assert load({}, {}) == Settings() == Settings.from_kwargs()
    settings = Settings()
    assert settings.database_url is None
    assert settings.http == Address("127.0.0.1", 8080)
    assert settings.grpc == Address("127.0.0.1", 50051)
    assert (settings.role, settings.concurrency, settings.handlers) == ("all", 16, ())
    assert (settings.cache, settings.cache_ttl, settings.cache_entries) == ("memory", 30.0, 10_000)
    assert settings.cache_bytes == 32 * 1024 * 1024
    assert (settings.metrics_buckets[0], settings.metrics_buckets[-1]) == (0.001, 300)
    assert (settings.auth, settings.rate_limit, settings.cors_origins) == ("token", None, ())
    assert (settings.ws_connections_per_user, settings.search_config) == (8, "russian")
    assert (settings.retention_days, settings.event_retention_hours, settings.shutdown_seconds) == (30, 24, 30)
    assert (settings.log, settings.log_level) == ("auto", "info")


def test_flags_win_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    toml = written(tmp_path, "concurrency = 1\ncache_ttl = 1.5\nrole = 'api'\n")
    settings = load({"concurrency": "3"}, {"TASKD_CONCURRENCY": "2", "TASKD_CACHE_TTL": "2"}, toml)
    assert (settings.concurrency, settings.cache_ttl, settings.role) == (3, 2.0, "api")


def test_a_commands_own_defaults_lose_to_everything() -> None:
    defaults = {"auth": "none", "handlers": ("a.b",), "log_level": "warning"}
    settings = load({"log_level": "debug"}, {"TASKD_AUTH": "token"}, None, defaults)
    assert (settings.auth, settings.handlers, settings.log_level) == ("token", ("a.b",), "debug")


def test_a_variable_names_the_file(tmp_path: Path) -> None:
    toml = written(tmp_path, "concurrency = 5\n")
    assert load({}, {"TASKD_CONFIG": str(toml)}).concurrency == 5
    (tmp_path / "more").mkdir()
    other = written(tmp_path / "more", "concurrency = 6\n")
    assert load({}, {"TASKD_CONFIG": str(toml)}, other).concurrency == 6


def test_an_empty_variable_is_not_set_and_others_are_none_of_our_business() -> None:
    assert load({}, {"TASKD_CONCURRENCY": "", "TASKD_CONFIG": "", "PATH": "/bin", "TASK": "x"}) == Settings()


def test_toml_has_types_of_its_own(tmp_path: Path) -> None:
    toml = written(tmp_path, "handlers = ['a', 'b.c']\nretention_days = 7\ngrpc = 'off'\ndata_dir = '/x'\n")
    settings = load({}, {}, toml)
    assert (settings.handlers, settings.retention_days, settings.grpc) == (("a", "b.c"), 7.0, None)
    assert settings.data_dir == Path("/x")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("http", "0.0.0.0:0", Address("0.0.0.0", 0)),
        ("http", "[::1]:80", Address("::1", 80)),
        ("http", "localhost:65535", Address("localhost", 65535)),
        ("grpc", "off", None),
        ("rate_limit", "off", None),
        ("rate_limit", "2.5", 2.5),
        ("concurrency", "10000", 10_000),
        ("shutdown_seconds", "0", 0.0),
        ("cache", "off", "off"),
        ("cache", "redis://:pw@host:6379/0", "redis://:pw@host:6379/0"),
        ("database_url", SECRET, SECRET),
        ("database_url", "postgresql:///tasks?host=/run/pg", "postgresql:///tasks?host=/run/pg"),
        ("database_url", "postgres://u@[::1]:5432/t", "postgres://u@[::1]:5432/t"),
        ("database_url", "postgresql://u@one:1,two:2/t", "postgresql://u@one:1,two:2/t"),
        ("handlers", "a, b.c,a", ("a", "b.c")),
        ("handlers", ["a,b", "c"], ("a", "b", "c")),
        ("cors_origins", "https://a.example,http://b:81", ("https://a.example", "http://b:81")),
        ("cors_origins", "*", ("*",)),
        ("metrics_buckets", "0.5, 1,2.5", (0.5, 1.0, 2.5)),
        ("metrics_buckets", [1, 2.5], (1.0, 2.5)),
        ("search_config", "public.mine", "public.mine"),
        ("upstream", "host:50051", "host:50051"),
        ("tls_cert", "/etc/cert.pem", Path("/etc/cert.pem")),
        ("data_dir", "~/data", Path.home() / "data"),
    ],
)
def test_good_values(name: str, text: object, value: object) -> None:
    assert getattr(load({name: text}, {}), name) == value
    assert getattr(Settings.from_kwargs(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("http", text) for text in ("", "8080", ":80", "host", "host:", "host:x", "host:65536", "::1:80", "off")),
        *(("http", text) for text in ("http://host:80", "ho st:80", "host:80\n", "u@host:80", "host:٣")),
        *(("grpc", text) for text in ("on", "OFF", "host")),
        *(("concurrency", text) for text in ("0", "10001", "x", "1.5", " 1", "1_0", "٣", "-1", "1" * 5000)),
        *(("cache_ttl", text) for text in ("0", "nan", "inf", "1e3", "x", "86401", "off", ".", "1.")),
        *(("rate_limit", text) for text in ("0", "-1", "none")),
        *(("role", text) for text in ("ALL", "al", "")),
        *(("database_url", text) for text in ("", "mysql://x", "host/db", "postgresql://h:port/d", "postgresql://[h/")),
        *(("database_url", text) for text in ("postgresql://h/d d", "postgresql://h/d\n", "postgresql://h:1,i:x/d")),
        *(("cache", text) for text in ("memcached", "http://x", "redis")),
        *(("metrics_buckets", text) for text in ("", "0,1", "2,1", "1,1", "1,,2", "1,x", "1,inf", "," * 60)),
        *(("cache_bytes", text) for text in ("0", "65535", "1e6")),
        *(("handlers", text) for text in ("a b", "a.", "1a", "a,,b", "a/b.py", "")),
        *(("cors_origins", text) for text in ("example.org", "https://a/path", "https://*.a")),
        *(("search_config", text) for text in ("", "Russian", "a'b", "a.b.c", "a" * 64)),
        *(("upstream", text) for text in ("host", "http://host:1", "")),
        *(("tls_cert", text) for text in ("", "a\0b")),
    ],
)
def test_a_bad_value_is_refused_by_the_name_its_user_wrote(tmp_path: Path, name: str, text: str) -> None:
    flag = SETTINGS[name].flag
    assert refused({name: text}).startswith(f"{flag} must ")
    with pytest.raises(ConfigError, match=f"^{name} must "):
        Settings.from_kwargs(**{name: text})
    if text:
        variable = SETTINGS[name].variable
        assert refused(environ={variable: text}).startswith(f"{variable} must ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", True),
        ("concurrency", 1.0),
        ("concurrency", None),
        ("cache_ttl", float("nan")),
        ("cache_ttl", False),
        ("cache_ttl", {}),
        ("handlers", 5),
        ("handlers", [5]),
        ("handlers", {}),
        ("http", 8080),
        ("role", ["all"]),
        ("role", {}),
        ("data_dir", 5),
        ("database_url", 5),
        ("rate_limit", True),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(name: str, value: object) -> None:
    assert refused({name: value}).startswith(f"{SETTINGS[name].flag} must ")


def test_a_refusal_says_what_is_wanted() -> None:
    assert refused(environ={"TASKD_CONCURRENCY": "many"}) == (
        "TASKD_CONCURRENCY must be a whole number from 1 to 10000, not 'many'"
    )
    assert refused({"role": "boss"}) == "--role must be one of all, api, worker, gateway, not 'boss'"
    assert refused({"rate_limit": "x" * 100}).endswith("...")


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({}, {"TASKD_CONCURENCY": "1"}, "unknown variable TASKD_CONCURENCY; did you mean TASKD_CONCURRENCY?"),
        ({}, {"TASKD_QQQQQQQQ": "1"}, "unknown variable TASKD_QQQQQQQQ"),
        ({}, {"TASKD_Q\nQQQQQQ": "1"}, "unknown variable 'TASKD_Q\\nQQQQQQ'"),
        ({"rol": "all"}, {}, "unknown flag rol; did you mean role?"),
    ],
)
def test_an_unknown_name_is_refused(flags: dict[str, object], environ: dict[str, str], message: str) -> None:
    assert refused(flags, environ) == message


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^unknown setting cashe; did you mean cache\?$"):
        Settings.from_kwargs(cashe="off")


def test_faults_of_the_file_name_it(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert refused(toml=missing) == f"can't read the configuration file {missing}: No such file or directory"
    toml = written(tmp_path, "role = 'api'\nconcurency = 4\n")
    assert refused(toml=toml) == f"unknown setting in {toml}: concurency; did you mean concurrency?"
    toml = written(tmp_path, "concurrency = '4x'\n")
    assert refused(toml=toml).startswith(f"concurrency in {toml} must be a whole number")
    toml = written(tmp_path, "[role]\nname = 'api'\n")
    assert refused(toml=toml).startswith(f"role in {toml} must be one of")
    toml = written(tmp_path, "role = \n")
    assert refused(toml=toml).startswith(f"{toml} is no TOML: ")
    toml.write_bytes(b"role = '\xff'")
    assert refused(toml=toml).startswith(f"{toml} is no TOML: ")


def test_arguments_for_embedding_take_values_as_they_are() -> None:
    settings = Settings.from_kwargs(
        concurrency=2, http=Address("::1", 0), grpc=None, handlers=["a"], data_dir=Path("d"), database_url=None
    )
    assert settings == Settings(
        concurrency=2, http=Address("::1", 0), grpc=None, handlers=("a",), data_dir=Path("d"), database_url=None
    )


def test_no_secret_is_shown() -> None:
    settings = Settings(database_url=SECRET, database_listen_url=SECRET, cache="redis://:s3cret@host")
    assert "s3cret" not in repr(settings)
    for name in ("database_url", "database_listen_url", "database_replica_url", "cache"):
        for text in ("mysql://ann:s3cret@h/", "postgresql://ann:s3cret@h:x/", "redis://ann:s3cret@h:x/ "):
            assert "s3cret" not in refused({name: text})


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().role = "api"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        *((address, True) for address in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1")),
        *((address, False) for address in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1")),
    ],
)
def test_only_loopback_may_go_without_tokens(address: str, loopback: bool) -> None:
    for given in ({"http": address}, {"grpc": address}):
        settings = Settings.from_kwargs(auth="none", **given)
        if loopback:
            validate_start(settings)
        else:
            with pytest.raises(ConfigError, match=f"^TASKD_AUTH=none .*{next(iter(given)).upper()} .*loopback"):
                validate_start(settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"role": "gateway"}, "TASKD_ROLE=gateway wants TASKD_UPSTREAM"),
        ({"role": "gateway", "upstream": "h:1", "auth": "token"}, "TASKD_ROLE=gateway wants TASKD_UPSTREAM_TOKEN"),
        ({"role": "gateway", "upstream": "h:1", "upstream_token": A_TOKEN}, "TASKD_UPSTREAM_TOKEN is not for"),
        ({"upstream_token": A_TOKEN}, "TASKD_UPSTREAM_TOKEN is only for TASKD_ROLE=gateway"),
        ({"upstream_ca": "a"}, "TASKD_UPSTREAM_CA is only for TASKD_ROLE=gateway"),
        *(
            ({"role": "gateway", "upstream": "h:1", name: value}, f"TASKD_{name.upper()} is not for TASKD_ROLE=gateway")
            for name, value in (("database_url", SECRET), ("database_listen_url", SECRET), ("handlers", "a.b"))
        ),
        ({"upstream": "h:1"}, "TASKD_UPSTREAM is only for"),
        ({"tls_cert": "c"}, "TASKD_TLS_CERT and TASKD_TLS_KEY go together"),
        ({"tls_key": "k"}, "TASKD_TLS_CERT and TASKD_TLS_KEY go together"),
        ({"tls_client_ca": "a"}, "TASKD_TLS_CLIENT_CA wants"),
        ({"database_replica_url": SECRET}, "TASKD_DATABASE_REPLICA_URL is not there yet"),
        ({"http": "127.0.0.1:50051"}, "TASKD_HTTP and TASKD_GRPC can't both listen on 127.0.0.1:50051"),
    ],
)
def test_what_does_not_go_together_stops_the_start(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_start(Settings.from_kwargs(**({"auth": "none"} | given)))
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_a_gateway_and_a_worker_serve_no_grpc_and_so_may_have_its_address() -> None:
    validate_start(Settings.from_kwargs(auth="none", role="gateway", upstream="h:1", http="127.0.0.1:50051"))
    validate_start(Settings.from_kwargs(auth="none", role="worker", http="127.0.0.1:50051"))


def test_two_ports_that_the_system_chooses_do_not_clash() -> None:
    validate_start(Settings.from_kwargs(auth="none", http="127.0.0.1:0", grpc="127.0.0.1:0"))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="taskd serve")
    config.add_flags(parser)
    return parser


def test_every_setting_is_a_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKD_CACHE_TTL", "9")
    toml = written(tmp_path, "role = 'worker'\n")
    words = ["--concurrency", "4", "--handlers", "a", "--handlers", "b,c", "--config", str(toml)]
    settings = config.from_command_line(parser().parse_args(words))
    assert settings == Settings(concurrency=4, handlers=("a", "b", "c"), cache_ttl=9.0, role="worker")
    assert config.flags_of(parser().parse_args([])) == {}


def test_the_help_names_every_setting_with_its_facts() -> None:
    text = " ".join(parser().format_help().split())
    for setting in SETTINGS.values():
        assert f"{setting.flag} VALUE" in text
        assert setting.variable in text
    assert "Tasks that run at once in this process. (1 to 10000; tasks; default 16; TASKD_CONCURRENCY)" in text


def test_every_setting_is_declared_whole() -> None:
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(Settings)]
    for setting in SETTINGS.values():
        assert setting.meaning.endswith(".")
        assert setting.kind.range


def test_the_documentation_is_printed_from_the_declarations() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert page == config.docs_page(), "python -m taskd.config > docs/configuration.md"
