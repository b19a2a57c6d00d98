"""The settings: each declared once, with its meaning, unit, range, special values and default.

Flags win over `TASKD_…` variables, these over the TOML file. `--help` and docs/configuration.md are printed from the
declarations (`python -m taskd.config > docs/configuration.md`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from taskd.domain.token import TOKEN
from taskd.errors import ConfigError
from taskd.settings import (
    Address,
    Bounds,
    Choice,
    File,
    Integer,
    Kind,
    Listen,
    Network,
    Networks,
    Number,
    Secret,
    Several,
    Text,
    Url,
)

_POSTGRES = ("postgresql", "postgres")
_CONFIG_VARIABLE = "TASKD_CONFIG"
TOKEN_VARIABLE = "TASKD_TOKEN"
"""The token of who calls a server by `taskd task` or `taskd bench`: no setting of one."""


class Setting(NamedTuple):
    """What is declared of one setting. `default` is as a user would write it; "" is none."""

    kind: Kind
    default: str
    meaning: str
    unit: str = ""
    name: str = ""

    @property
    def variable(self) -> str:
        return f"TASKD_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def several(self) -> bool:
        return isinstance(self.kind, Several)


def _declare(kind: Kind, default: str, meaning: str, unit: str = "") -> Any:
    value = kind.read(default) if default else () if isinstance(kind, Several | Networks) else None
    # A URL may hold a password: it stays out of repr, and so out of logs and tracebacks.
    shown = not isinstance(kind, Url | Secret)
    return dataclasses.field(default=value, repr=shown, metadata={"setting": Setting(kind, default, meaning, unit)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a process. Made by `load` or `from_kwargs`, which check the values."""

    database_url: str | None = _declare(
        Url(_POSTGRES), "", "The database. None: an embedded PostgreSQL, when the extra `embedded` is installed."
    )
    database_listen_url: str | None = _declare(
        Url(_POSTGRES), "", "The same database past a pooler, for LISTEN. None: no pooler stands between."
    )
    database_replica_url: str | None = _declare(
        Url(_POSTGRES), "", "A replica for reads of lists and search. None: the database itself."
    )
    data_dir: Path = _declare(File("a directory"), "taskd-data", "Where the embedded PostgreSQL keeps its data.")
    pg_bin: Path | None = _declare(
        File("a directory"), "", "PostgreSQL's programs for the embedded one. None: the wheel's, else installed ones."
    )
    http: Address = _declare(Listen(), "127.0.0.1:8080", "Where REST, WebSocket and metrics listen.")
    grpc: Address | None = _declare(
        Listen(off=True), "127.0.0.1:50051", "Where gRPC listens, in the roles `all` and `api`."
    )
    role: str = _declare(
        Choice(("all", "api", "worker", "gateway")),
        "all",
        "What this process does: `api` serves, `worker` runs tasks, `gateway` serves from another process.",
    )
    upstream: str | None = _declare(
        Text("host:port", r"[^\s/@]+:[0-9]{1,5}"),
        "",
        "For a gateway: the gRPC address that it serves from; of a name with several addresses, all.",
    )
    upstream_token: str | None = _declare(
        Secret("a token, `tk_` and 43 letters and digits", TOKEN.pattern),
        "",
        "For a gateway: its own token at the upstream, of the role `admin`, by which it finds out who calls.",
    )
    upstream_ca: Path | None = _declare(
        File("a PEM file"),
        "",
        "For a gateway: who signs the upstream's certificate. With it, the upstream is reached by TLS, and is shown"
        " `TASKD_TLS_CERT`.",
    )
    handlers: tuple[str, ...] = _declare(
        Several(Text("a module's dotted name", r"[^\W\d]\w*(\.[^\W\d]\w*)*")), "", "Modules whose handlers run here."
    )
    concurrency: int = _declare(Integer(1, 10_000), "16", "Tasks that run at once in this process.", "tasks")
    cache: str = _declare(
        Url(("redis", "rediss"), ("memory", "off")), "memory", "Where reads are cached; Redis shares it with others."
    )
    cache_ttl: float = _declare(Number(0.1, 86_400), "30", "How long a cached read is kept.", "seconds")
    cache_entries: int = _declare(Integer(1, 10_000_000), "10000", "How many reads are cached in memory.", "entries")
    cache_bytes: int = _declare(
        Integer(65_536, 2**40), "33554432", "How much the reads that are cached in memory may take.", "bytes"
    )
    auth: str = _declare(
        Choice(("token", "none")), "token", "How callers are known. `none`: by their word, and on loopback only."
    )
    trusted_proxies: tuple[Network, ...] = _declare(
        Networks(), "", "Proxies whose `Forwarded` or `X-Forwarded-For` is believed."
    )
    tls_cert: Path | None = _declare(
        File("a PEM file"), "", "The certificate chain, for HTTP and gRPC; read again on SIGHUP. None: no TLS."
    )
    tls_key: Path | None = _declare(File("a PEM file"), "", "The certificate's private key.")
    tls_client_ca: Path | None = _declare(
        File("a PEM file"), "", "Who signs the certificates of clients; with it, each client needs one."
    )
    cors_origins: tuple[str, ...] = _declare(
        Several(Text("an origin such as https://example.org, or *", r"\*|https?://[^\s/,*]+")),
        "",
        "Origins whose pages may call from a browser. `*`: all.",
    )
    rate_limit: float | None = _declare(
        Number(0.1, 1e6, off=True),
        "off",
        "Calls of one token, in each process; those of one second may come at once.",
        "calls per second",
    )
    ws_connections_per_user: int = _declare(
        Integer(1, 10_000), "8", "WebSockets of one user at once, and streams of `GET /events`.", "connections"
    )
    search_config: str = _declare(
        Text("the name of a text search configuration", r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?"),
        "russian",
        "PostgreSQL's text search configuration (`russian` stems Latin words as English).",
    )
    retention_days: float = _declare(Number(0.001, 36_500), "30", "How long final tasks are kept.", "days")
    event_retention_hours: float = _declare(
        Number(1, 8760), "24", "How long events are kept, and so how long a client may be away and resume.", "hours"
    )
    metrics_buckets: tuple[float, ...] = _declare(
        Bounds(50),
        "0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300",
        "Upper bounds of the buckets for the times of tasks in metrics: processing and wait.",
        "seconds",
    )
    log: str = _declare(
        Choice(("auto", "text", "json")), "auto", "The log's format. `auto`: text on a terminal, else JSON lines."
    )
    log_level: str = _declare(Choice(("debug", "info", "warning", "error")), "info", "The least level that is logged.")
    shutdown_seconds: float = _declare(
        Number(0, 3600), "30", "How long running tasks may go on after a stop is asked for.", "seconds"
    )

    @property
    def direct(self) -> bool:
        """Whether no pooler stands before the database."""
        return self.database_listen_url is None

    @classmethod
    def from_kwargs(cls, **values: object) -> Settings:
        """Return the settings that are given by name, each as its Python value or as text; None is the default.

        Raises:
            ConfigError: one is unknown or wrong.
        """
        _refuse_unknown(values, SETTINGS, "setting")
        given = {name: value for name, value in values.items() if value is not None or _may_be_off(SETTINGS[name])}
        return cls(**{name: _read(SETTINGS[name], value, name) for name, value in given.items()})


SETTINGS: Mapping[str, Setting] = {
    field.name: field.metadata["setting"]._replace(name=field.name)
    for field in dataclasses.fields(Settings)
}
"""Every setting by its name, in the order of the documentation."""


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: Path | str | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of a process.

    Args:
        flags: texts by setting name, as `flags_of` gives them; they win.
        environ: the environment; a variable that is empty counts as not set.
        toml_path: the TOML file. None: the one that `TASKD_CONFIG` names, if any.
        defaults: a command's own, in place of the declared ones.

    Raises:
        ConfigError: one is unknown or wrong; the line names it as its user wrote it.
    """
    variables = {name: value for name, value in environ.items() if name.startswith("TASKD_") and value}
    known = {setting.variable: setting for setting in SETTINGS.values()}
    path = toml_path or variables.pop(_CONFIG_VARIABLE, None)
    variables.pop(_CONFIG_VARIABLE, None)
    variables.pop(TOKEN_VARIABLE, None)
    _refuse_unknown(variables, [*known, _CONFIG_VARIABLE], "variable")

    values = {name: _read(SETTINGS[name], raw, name) for name, raw in (defaults or {}).items()}
    for key, raw in (_toml(Path(path)) if path else {}).items():
        values[key] = _read(SETTINGS[key], raw, f"{key} in {path}")
    for variable, text in variables.items():
        values[known[variable].name] = _read(known[variable], text, variable)
    _refuse_unknown(flags, SETTINGS, "flag")
    for name, flag in flags.items():
        values[name] = _read(SETTINGS[name], flag, SETTINGS[name].flag)
    return Settings(**values)


def validate_start(settings: Settings) -> None:
    """Refuse settings that are each right, but not together, or not yet.

    Raises:
        ConfigError: with one line that names the setting.
    """
    if settings.auth == "none":
        for name, address in (("http", settings.http), ("grpc", settings.grpc)):
            if address is not None and not address.loopback:
                raise ConfigError(
                    f"TASKD_AUTH=none trusts everybody, so TASKD_{name.upper()} must be on loopback, not {address}"
                )
    _check_gateway(settings)
    _check_tls(settings)
    serves_grpc = settings.role in ("all", "api") and settings.grpc is not None
    if serves_grpc and settings.grpc == settings.http and settings.http.port:
        raise ConfigError(f"TASKD_HTTP and TASKD_GRPC can't both listen on {settings.http}")
    if settings.database_replica_url is not None:
        # A setting that is taken and then does nothing would be worse than none.
        raise ConfigError("TASKD_DATABASE_REPLICA_URL is not there yet; leave it out")


def _check_gateway(settings: Settings) -> None:
    if settings.role == "gateway" and settings.upstream is None:
        raise ConfigError("TASKD_ROLE=gateway wants TASKD_UPSTREAM: the address that it serves from")
    if settings.upstream is not None and settings.role != "gateway":
        raise ConfigError("TASKD_UPSTREAM is only for TASKD_ROLE=gateway")
    if settings.role == "gateway":
        for name in ("database_url", "database_listen_url", "handlers"):
            if getattr(settings, name):
                raise ConfigError(f"{SETTINGS[name].variable} is not for TASKD_ROLE=gateway, which has no database")
        if settings.auth == "token" and settings.upstream_token is None:
            raise ConfigError(
                "TASKD_ROLE=gateway wants TASKD_UPSTREAM_TOKEN, to find out who calls: make one by"
                " `taskd token create --role admin` where the database is"
            )
        if settings.auth == "none" and settings.upstream_token is not None:
            raise ConfigError("TASKD_UPSTREAM_TOKEN is not for TASKD_AUTH=none, which would lend it to everybody")
    else:
        for name in ("upstream_token", "upstream_ca"):
            if getattr(settings, name) is not None:
                raise ConfigError(f"{SETTINGS[name].variable} is only for TASKD_ROLE=gateway")


def _check_tls(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("TASKD_TLS_CERT and TASKD_TLS_KEY go together")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise ConfigError("TASKD_TLS_CLIENT_CA wants TASKD_TLS_CERT and TASKD_TLS_KEY")


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Give a command a flag for each setting, or those of these names, and `--config` for the TOML file."""
    group = parser.add_argument_group("settings", f"Each is also a variable, and a key of the TOML file; {_SOURCES}")
    group.add_argument("--config", metavar="FILE", help=f"The TOML file ({_CONFIG_VARIABLE}).")
    for setting in SETTINGS.values() if names is None else [SETTINGS[name] for name in names]:
        group.add_argument(
            setting.flag,
            dest=f"setting_{setting.name}",
            action="append" if setting.several else "store",
            metavar="VALUE",
            # argparse formats it with %.
            help=_help(setting).replace("%", "%%"),
        )


def flags_of(asked: argparse.Namespace) -> dict[str, object]:
    """Return the settings that a parsed command line gives, for `load`."""
    given = {name: getattr(asked, f"setting_{name}", None) for name in SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def from_command_line(asked: argparse.Namespace, defaults: Mapping[str, object] | None = None) -> Settings:
    """Return the settings of the process that was started with these flags, in this environment.

    Raises:
        ConfigError: as `load`.
    """
    return load(flags_of(asked), os.environ, getattr(asked, "config", None), defaults)


_SOURCES = "flags win over variables, these over the file."


def _help(setting: Setting) -> str:
    facts = [setting.kind.range, setting.unit, f"default {setting.default or 'none'}", setting.variable]
    return f"{setting.meaning} ({'; '.join(fact for fact in facts if fact)})".replace("`", "")


def docs_table() -> str:
    """Return a Markdown table of all settings."""
    rows = ["| variable | meaning | values | unit | default |", "| --- | --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        default = f"`{setting.default}`" if setting.default else "none"
        cells = [f"`{setting.variable}`", setting.meaning, setting.kind.range, setting.unit, default]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def docs_page() -> str:
    """Return docs/configuration.md."""
    return f"""# Configuration

<!-- Printed from the declarations: python -m taskd.config > docs/configuration.md -->

Every setting is a flag of `taskd serve`, a variable and a key of an optional TOML file;
{_SOURCES}
`TASKD_CACHE_TTL=5`, `--cache-ttl 5` and `cache_ttl = 5` are the same. The file is the one that `--config` or
`TASKD_CONFIG` names. A variable that is empty counts as not set. A setting that is unknown or wrong stops the start
with one line that names it. For embedding, `Taskd(cache_ttl=5)` takes the same names.

{docs_table()}"""


def _toml(path: Path) -> dict[str, Any]:
    try:
        # Imported only where it is used, as `difflib` below: most starts need neither.
        import tomllib

        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read the configuration file {path}: {error.strerror}") from None
    except ValueError as error:
        # TOMLDecodeError and UnicodeDecodeError both are one.
        raise ConfigError(f"{path} is no TOML: {' '.join(str(error).split())}") from None
    _refuse_unknown(values, SETTINGS, f"setting in {path}:")
    return values


def _refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            import difflib

            alike = difflib.get_close_matches(name, known, 1)
            shown = name if name.isprintable() else ascii(name)
            raise ConfigError(f"unknown {what} {shown}" + (f"; did you mean {alike[0]}?" if alike else ""))


def _may_be_off(setting: Setting) -> bool:
    return isinstance(setting.kind, Listen | Number) and setting.kind.off


def _read(setting: Setting, raw: object, where: str) -> Any:
    try:
        return setting.kind.read(raw)
    except ValueError as error:
        raise ConfigError(f"{where} {error}") from None


if __name__ == "__main__":
    print(docs_page(), end="")
