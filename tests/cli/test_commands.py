"""The commands as their users call them: what they print, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import NamedTuple

import pytest

from taskd import __version__
from taskd.cli import COMMANDS

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


async def taskd(*words: str, **variables: str) -> Ended:
    """Run a command to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKD")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskd", *words, env=environment | variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_help_names_every_command() -> None:
    ended = await taskd("--help")
    assert ended.code == 0
    for name, summary in COMMANDS.items():
        assert name in ended.out
        assert summary.split()[0] in ended.out
    assert (await taskd("--version")).out == f"taskd {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
async def test_each_command_has_its_help(name: str) -> None:
    ended = await taskd(name, "--help")
    assert ended.code == 0
    assert f"usage: taskd {name}" in ended.out
    assert ("TASKD_HTTP" in ended.out) is (name not in ("openapi", "task", "token"))


@pytest.mark.parametrize(
    ("words", "variables", "named"),
    [
        (["serve", "--database-replica-url", NOWHERE], {}, "TASKD_DATABASE_REPLICA_URL is not there yet"),
        (["serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere", "--database-url", NOWHERE], {}, "TASKD_TLS_CERT"),
        (["serve", "--http", "nowhere"], {}, "--http"),
        (["serve"], {"TASKD_CONCURRENCY": "many"}, "TASKD_CONCURRENCY"),
        (["serve"], {"TASKD_CONCURENCY": "4"}, "did you mean TASKD_CONCURRENCY?"),
        (["serve", "--auth", "none", "--http", "0.0.0.0:0"], {}, "must be on loopback, not 0.0.0.0:0"),
        (["serve", "--auth", "none", "--handlers", "no_such_module", "--database-url", NOWHERE], {}, "no_such_module"),
        (["migrate"], {}, "database_url"),
    ],
)
async def test_a_bad_setting_stops_the_start_with_one_line(
    words: list[str], variables: dict[str, str], named: str
) -> None:
    ended = await taskd(*words, **variables)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("taskd: ")
    assert named in ended.err


async def test_an_unknown_command_or_flag_is_a_usage_error() -> None:
    assert (await taskd("dance")).code == 2
    assert (await taskd("serve", "--colour", "red")).code == 2
    assert (await taskd()).code == 2


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_database_that_is_not_there_is_told_by_the_code(command: str) -> None:
    ended = await taskd(command, "--auth", "none", "--http", "127.0.0.1:0", "--grpc", "off", "--database-url", NOWHERE)
    assert ended.code == 3
    assert "taskd: the database can't be reached" in ended.err
    assert "Traceback" not in ended.err


async def test_migrate_says_what_it_did(empty_database_url: str) -> None:
    first = await taskd("migrate", "--database-url", empty_database_url)
    assert first.code == 0
    assert "applied 0001_core" in first.out
    second = await taskd("migrate", "--database-url", empty_database_url)
    assert second.out == "nothing to do: the schema is up to date\n"


async def test_openapi_prints_what_the_server_gives() -> None:
    ended = await taskd("openapi")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["openapi"] == "3.1.0"
    assert "/tasks/{id}/cancel" in document["paths"]


async def test_check_finds_nothing_wrong_where_nothing_is(database_url: str) -> None:
    ended = await taskd("check", "--database-url", database_url, TASKD_AUTH="none")
    assert ended.code == 0, ended
    assert all(line.startswith("ok  ") for line in ended.out.splitlines())
    parts = ("configuration", "PostgreSQL", "schema", "connections", "encoding", "locale", "search", "notifications")
    for what in parts:
        assert what in ended.out


async def test_check_says_what_is_wrong(empty_database_url: str) -> None:
    ended = await taskd("check", "--database-url", empty_database_url)
    assert ended.code == 1
    lacks = "0001_core, 0002_totals, 0003_search, 0004_tokens, 0005_ready"
    assert f"FAIL  schema: lacks {lacks}; run `taskd migrate`" in ended.out
    assert (await taskd("check", "--database-url", NOWHERE, TASKD_AUTH="none")).code == 3
    assert "an embedded PostgreSQL in" in (await taskd("check", TASKD_AUTH="none")).out


async def test_a_search_configuration_is_migrated_to_and_checked(database_url: str) -> None:
    database = ["--database-url", database_url, "--search-config", "english"]
    ended = await taskd("check", *database, TASKD_AUTH="none")
    assert ended.code == 1
    assert "FAIL  search: documents are made with pg_catalog.russian, and not with english" in ended.out
    done = "made the search documents anew: pg_catalog.english in place of pg_catalog.russian\n"
    assert (await taskd("migrate", *database)).out == done
    assert (await taskd("migrate", *database)).out == "nothing to do: the schema is up to date\n"
    assert (await taskd("check", *database, TASKD_AUTH="none")).code == 0
    ended = await taskd("migrate", "--database-url", database_url, "--search-config", "klingon")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "no text search configuration klingon" in ended.err


async def test_check_asks_the_cache_in_redis(database_url: str) -> None:
    nowhere = ["--cache", "redis://:s3cret@127.0.0.1:1", "--database-url", database_url]
    ended = await taskd("check", *nowhere, TASKD_AUTH="none")
    assert ended.code == 1
    assert "FAIL  cache: Redis: " in ended.out
    assert "s3cret" not in ended.out + ended.err
