"""A PostgreSQL of taskd's own, for trying out, for tests and for a single machine.

It listens on a Unix socket only, belongs to one taskd (a lock on its directory), and dies with it, also when taskd is
killed: the kernel sends it SIGINT, its fast shutdown, and the next start finds the data. PostgreSQL refuses to run as
root, so under root it runs as `postgres`, or else `nobody`, and its directory is given to that account. Nobody else's
permissions are touched: what that account can't reach is copied (the programs), or lies elsewhere (the data).

    <data_dir>/lock          held while a taskd uses the directory
    <data_dir>/postgres.log  what the server says
    <data_dir>/pg/           the cluster
    <data_dir>/bin/          the programs, if the account can't reach them where they are
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg

from taskd.errors import StartError
from taskd.store.binaries import Binaries, find

START_WITHIN = 600.0
"""Seconds for a start; recovery after a crash takes its time on a small machine."""

STOP_WITHIN = 30.0
"""Seconds for a fast shutdown; then the server is told to drop everything."""

SOCKET_PATH_MAX = 90
"""Bytes of a socket's directory: the path of a Unix socket has 107, and PostgreSQL adds its file's name."""

INSTEAD = Path("/var/lib/taskd")
"""Where the data lies when the account that PostgreSQL runs as can't reach the directory that was asked for."""

DATABASE = "taskd"
USER = "taskd"

# For containers: few processes, little memory. 9 MiB instead of 22 when idle.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "max_wal_size": "256MB",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "autovacuum_naptime": "10s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Runs in the child: drops root, asks to be told of the parent's death (after the change of user, which clears it), and
# looks whether that has happened already (prctl(2), PR_SET_PDEATHSIG).
_LAUNCH = """
import ctypes, os, sys
parent, uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
os.umask(0o077)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 2)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
os.execv(command[0], command)
"""


class EmbeddedPostgres:
    """One server in one directory.

    Args:
        data_dir: the directory; made if it is not there.
        pg_bin: where the programs are; None: see `binaries`.
        died: called when the server ends without having been asked to.
    """

    def __init__(self, data_dir: Path, pg_bin: Path | None, died: Callable[[], None] | None = None) -> None:
        self._asked_for = data_dir.absolute()
        self._pg_bin = pg_bin
        self._died = died
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sockets: Path | None = None
        self._stopping = False
        account = _account()
        self._uid, self._gid = account.pw_uid, account.pw_gid
        self.directory = self._place()
        """Where the data is."""

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> str:
        """Start the server and return the URL of its database `taskd`.

        Raises:
            StartError: another taskd uses the directory, it is of another version, or the server did not start;
                the message names the directory or the log.
            ConfigError: `pg_bin` has no programs.
        """
        binaries = find(self._pg_bin)
        self._make_directory()
        self._take_lock()
        try:
            return await self._start(binaries)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and wait for its end. Safe twice, and before `start`."""
        self._stopping = True
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await process.wait()
            except TimeoutError:
                process.send_signal(signal.SIGQUIT)
                await process.wait()
        if self._watch is not None:
            await self._watch
            self._watch = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def running(self) -> str | None:
        """Return the URL of the database of a server that runs here already, another process's, or None."""
        lines = _lines(self.directory / "pg" / "postmaster.pid")
        if not lines or not _says_ready(lines, lines[0]) or not Path(f"/proc/{lines[0]}").exists():
            return None
        # LOCK_FILE_LINE_SOCKET_DIR.
        return _url(Path(lines[4]))

    # Directories and accounts.

    def _place(self) -> Path:
        if os.geteuid() != 0 or _reaches(self._uid, self._gid, self._asked_for):
            return self._asked_for
        digest = hashlib.sha256(os.fsencode(self._asked_for)).hexdigest()[:8]
        return INSTEAD / f"{self._asked_for.name}-{digest}"

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._give(self.directory, 0o700)
        except OSError as error:
            raise StartError(f"can't use the data directory {self.directory}: {error.strerror}") from None

    def _give(self, path: Path, mode: int) -> None:
        os.chmod(path, mode)
        if os.geteuid() == 0:
            os.chown(path, self._uid, self._gid)

    def _take_lock(self) -> None:
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise StartError(f"another taskd uses the data directory {self.directory}") from None

    def _reachable(self, binaries: Binaries) -> Path:
        """Return where the programs are for the account, after copying them if need be."""
        if os.geteuid() != 0 or _reaches(self._uid, self._gid, binaries.directory / "postgres"):
            return binaries.directory
        if not binaries.tree:
            raise StartError(f"the account that runs PostgreSQL can't reach {binaries.directory}")
        copy = self.directory / "bin" / str(binaries.major)
        if not copy.exists():
            half = Path(tempfile.mkdtemp(dir=self.directory))
            for source in binaries.tree:
                shutil.copytree(source, half / source.name, symlinks=True)
            for path in (half, *half.rglob("*")):
                if not path.is_symlink():
                    os.chown(path, self._uid, self._gid)
            copy.parent.mkdir(exist_ok=True)
            self._give(copy.parent, 0o700)
            half.rename(copy)
        return copy / binaries.directory.relative_to(binaries.tree[0].parent)

    def _socket_directory(self) -> Path:
        inside = self.directory / "socket"
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX and "," not in str(inside):
            inside.mkdir(exist_ok=True)
            self._give(inside, 0o700)
            return inside
        self._sockets = Path(tempfile.mkdtemp(prefix="taskd-", dir="/tmp"))
        self._give(self._sockets, 0o700)
        return self._sockets

    # Starting.

    async def _start(self, binaries: Binaries) -> str:
        cluster = self.directory / "pg"
        programs = await asyncio.to_thread(self._reachable, binaries)
        if not cluster.exists():
            await self._make_cluster(programs, binaries.major, cluster)
        self._check_version(cluster, binaries.major)
        sockets = self._socket_directory()
        await self._wait_for_orphan(cluster)
        self._stopping = False
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [str(programs / "postgres"), "-D", str(cluster), "-k", str(sockets), *settings]
        self._process = await self._launch(command)
        self._watch = asyncio.ensure_future(self._watch_over(self._process))
        await self._ready(cluster, self._process)
        await self._make_database(sockets)
        return _url(sockets)

    async def _launch(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _LAUNCH,
                str(os.getpid()),
                str(self._uid),
                str(self._gid),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                # Ctrl-C is for taskd, which then ends the server in order.
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _make_cluster(self, programs: Path, major: int, cluster: Path) -> None:
        """Make a cluster beside its place, so that one that was cut short is never taken for a whole one."""
        for left in self.directory.glob("making-*"):
            shutil.rmtree(left, ignore_errors=True)
        half = Path(tempfile.mkdtemp(prefix="making-", dir=self.directory))
        self._give(half, 0o700)
        # Lower-casing must know Cyrillic, or Russian words are not stemmed. Before 17 that takes the system's locale.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(programs / "initdb"), "-D", str(half), "-U", USER, "--auth=trust", "--encoding=UTF8"]
        command += [*(locale if major >= 17 else ["--locale=C.UTF-8"]), "--wal-segsize=1"]
        process = await self._launch(command)
        if await process.wait() != 0:
            shutil.rmtree(half, ignore_errors=True)
            raise StartError(f"initdb failed: {self._log_end()}")
        half.rename(cluster)

    def _check_version(self, cluster: Path, major: int) -> None:
        try:
            found = (cluster / "PG_VERSION").read_text().strip()
        except OSError:
            raise StartError(f"{cluster} holds no PostgreSQL cluster") from None
        if found != str(major):
            raise StartError(
                f"{cluster} was made by PostgreSQL {found}, and the programs here are {major}: set TASKD_PG_BIN to "
                f"those of {found}, or begin anew in another TASKD_DATA_DIR"
            )

    async def _wait_for_orphan(self, cluster: Path) -> None:
        """Wait for the server of a taskd that was killed: it was told to end, and may need a moment."""
        try:
            pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if os.fsencode(cluster) not in command:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGINT)
        async with asyncio.timeout(START_WITHIN):
            while Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.05)

    async def _ready(self, cluster: Path, process: asyncio.subprocess.Process) -> None:
        """Wait as pg_ctl does: until line 8 of the server's pid file says so."""
        try:
            async with asyncio.timeout(START_WITHIN):
                while not _says_ready(_lines(cluster / "postmaster.pid"), str(process.pid)):
                    if process.returncode is not None:
                        raise StartError(f"PostgreSQL did not start: {self._log_end()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise StartError(f"PostgreSQL was not ready in {START_WITHIN:.0f} s: {self._log_end()}") from None

    async def _make_database(self, sockets: Path) -> None:
        connection = await asyncpg.connect(user=USER, database="postgres", host=str(sockets), timeout=60)
        try:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def _watch_over(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if not self._stopping and self._died is not None:
            self._died()

    # The server's log.

    @property
    def _log(self) -> Path:
        return self.directory / "postgres.log"

    def _log_end(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return f"{' / '.join(lines[-3:])} (see {self._log})"


def _account() -> pwd.struct_passwd:
    """Return the account that the server runs as."""
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            raise StartError(f"the user id {os.geteuid()} has no account, and PostgreSQL wants one") from None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StartError("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _reaches(uid: int, gid: int, path: Path) -> bool:
    """Return whether an account may search all directories above a path, as far as they exist."""
    for parent in path.resolve().parents:
        try:
            found = parent.stat()
        except OSError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            continue
        bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid == gid else 0o001
        if not found.st_mode & bit:
            return False
    return True


def _lines(file: Path) -> Sequence[str]:
    try:
        return file.read_text().split("\n")
    except OSError:
        return ()


def _says_ready(lines: Sequence[str], pid: str) -> bool:
    """Return whether a server's pid file says that it takes connections (miscadmin.h, LOCK_FILE_LINE_PM_STATUS)."""
    return len(lines) >= 8 and lines[0] == pid and lines[7].strip() == "ready"


def _url(sockets: Path) -> str:
    return f"postgresql://{USER}@/{DATABASE}?host={sockets}"
