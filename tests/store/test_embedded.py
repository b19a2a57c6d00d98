"""A PostgreSQL of our own: found, started, locked, ended with us, whatever comes in between."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from taskd.errors import ConfigError, StartError
from taskd.store import embedded
from taskd.store.embedded import EmbeddedPostgres
from tests.waiting import eventually

AS_ROOT = os.geteuid() == 0

PARENT = """
import asyncio, sys
from pathlib import Path
from taskd.store.embedded import EmbeddedPostgres

async def main():
    postgres = EmbeddedPostgres(Path(sys.argv[1]), None)
    print(await postgres.start(), postgres.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that any account can reach, unlike those of pytest under root."""
    found = Path(tempfile.mkdtemp(prefix="taskd-embedded-", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A data directory with a cluster in it, to be copied: making one takes seconds."""
    root = Path(tempfile.mkdtemp(prefix="taskd-prepared-", dir="/tmp"))
    root.chmod(0o755)

    async def make() -> None:
        postgres = EmbeddedPostgres(root / "data", None)
        await postgres.start()
        await postgres.stop()

    asyncio.run(make())
    yield root / "data"
    shutil.rmtree(root)


@pytest.fixture
def data(folder: Path, prepared: Path) -> Path:
    subprocess.run(["cp", "-a", prepared, folder / "data"], check=True)
    return folder / "data"


@pytest.fixture
async def postgres(data: Path) -> AsyncIterator[EmbeddedPostgres]:
    found = EmbeddedPostgres(data, None)
    yield found
    await found.stop()


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_it_starts_from_nothing_and_finds_its_data_again(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder / "data", None)
    url = await postgres.start()
    await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    await postgres.stop()
    await postgres.stop()
    assert postgres.pid is None
    assert await ask(await postgres.start(), "SELECT answer FROM kept") == 42
    await postgres.stop()


async def test_it_listens_on_a_socket_only_and_knows_cyrillic(postgres: EmbeddedPostgres) -> None:
    url = await postgres.start()
    assert await ask(url, "SHOW listen_addresses") == ""
    assert await ask(url, "SELECT lower('ПРИВЕТ')") == "привет"
    assert "'машин'" in str(await ask(url, "SELECT to_tsvector('russian', 'Большие Машины')::text"))


async def test_nobody_else_can_reach_the_socket_or_the_data(postgres: EmbeddedPostgres) -> None:
    await postgres.start()
    for path in (postgres.directory, postgres.directory / "pg", postgres.directory / "socket"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not AS_ROOT, reason="only root can run it as another account")
async def test_under_root_it_runs_as_another_account(postgres: EmbeddedPostgres) -> None:
    await postgres.start()
    owner = Path(f"/proc/{postgres.pid}").stat().st_uid
    assert pwd.getpwuid(owner).pw_name in ("postgres", "nobody")
    assert postgres.directory.stat().st_uid == owner


async def test_a_second_start_on_one_directory_is_refused_by_name(postgres: EmbeddedPostgres, data: Path) -> None:
    url = await postgres.start()
    with pytest.raises(StartError, match=f"another taskd uses the data directory {data}"):
        await EmbeddedPostgres(data, None).start()
    assert await ask(url, "SELECT 1") == 1


async def test_a_server_that_dies_is_told_of_and_starts_again(data: Path) -> None:
    died = asyncio.Event()
    postgres = EmbeddedPostgres(data, None, died.set)
    url = await postgres.start()
    await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await died.wait()
    await postgres.stop()
    assert await ask(await postgres.start(), "SELECT answer FROM kept") == 42
    await postgres.stop()


async def test_it_dies_with_its_parent_and_the_next_one_finds_the_data(data: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(data), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    url, pid = (await parent.stdout.readline()).decode().split()
    await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    parent.kill()
    await parent.wait()
    postgres = EmbeddedPostgres(data, None)
    # At once: the orphan may still be at its shutdown.
    assert await ask(await postgres.start(), "SELECT answer FROM kept") == 42
    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    await postgres.stop()


async def test_a_cluster_that_was_cut_short_is_made_anew(folder: Path) -> None:
    data = folder / "data"
    half = data / "making-abc"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    postgres = EmbeddedPostgres(data, None)
    assert await ask(await postgres.start(), "SELECT 1") == 1
    assert not half.exists()
    await postgres.stop()


async def test_data_of_another_version_is_refused_with_both_named(postgres: EmbeddedPostgres, data: Path) -> None:
    (data / "pg" / "PG_VERSION").write_text("13\n")
    with pytest.raises(StartError, match=r"was made by PostgreSQL 13, and the programs here are \d\d: "):
        await postgres.start()


async def test_what_is_no_cluster_is_refused(postgres: EmbeddedPostgres, data: Path) -> None:
    (data / "pg" / "PG_VERSION").unlink()
    with pytest.raises(StartError, match="holds no PostgreSQL cluster"):
        await postgres.start()


async def test_a_server_that_does_not_start_shows_what_it_said(postgres: EmbeddedPostgres, data: Path) -> None:
    (data / "pg" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(StartError, match=r"PostgreSQL did not start: .*no_such_setting.*postgres\.log"):
        await postgres.start()
    # The directory is free again.
    (data / "pg" / "postgresql.conf").write_text("")
    assert await ask(await postgres.start(), "SELECT 1") == 1


async def test_programs_that_are_not_there_are_refused(data: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="TASKD_PG_BIN"):
        await EmbeddedPostgres(data, folder).start()


async def test_a_long_path_has_its_socket_elsewhere(folder: Path, prepared: Path) -> None:
    deep = folder / ("long" * 20)
    deep.mkdir()
    subprocess.run(["cp", "-a", prepared, deep / "data"], check=True)
    postgres = EmbeddedPostgres(deep / "data", None)
    url = await postgres.start()
    assert await ask(url, "SELECT 1") == 1
    sockets = Path(url.partition("host=")[2])
    assert sockets.stat().st_mode & 0o077 == 0
    await postgres.stop()
    assert not sockets.exists()


async def test_a_directory_that_can_not_be_made_is_told(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(StartError, match=r"can't use the data directory .*/file/data"):
        await EmbeddedPostgres(folder / "file" / "data", None).start()


@pytest.mark.skipif(not AS_ROOT, reason="only root can run it as another account")
async def test_data_below_a_directory_that_the_account_can_not_reach_lies_elsewhere(
    folder: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(embedded, "INSTEAD", folder / "instead")
    postgres = EmbeddedPostgres(private / "data", None)
    assert postgres.directory.parent == folder / "instead"
    assert EmbeddedPostgres(private / "data", None).directory == postgres.directory
    assert EmbeddedPostgres(private / "other" / "data", None).directory != postgres.directory
    (folder / "instead").mkdir()
    subprocess.run(["cp", "-a", prepared, postgres.directory], check=True)
    assert await ask(await postgres.start(), "SELECT 1") == 1
    await postgres.stop()
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root can run it as another account")
async def test_programs_that_the_account_can_not_reach_are_copied(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reaches = embedded._reaches

    def hidden(uid: int, gid: int, path: Path) -> bool:
        return "site-packages" not in str(path) and reaches(uid, gid, path)

    monkeypatch.setattr(embedded, "_reaches", hidden)
    postgres = EmbeddedPostgres(data, None)
    assert await ask(await postgres.start(), "SELECT 1") == 1
    assert str(data) in os.readlink(f"/proc/{postgres.pid}/exe")
    await postgres.stop()
