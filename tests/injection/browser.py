"""A browser without a screen, told what to do by the Chrome DevTools Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

PROGRAM = "chromium"


class Page:
    """One page, and what it has complained of."""

    def __init__(self, socket: ClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None

    async def open(self, url: str) -> None:
        """Show what is at a URL."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(60):
            while True:
                told = json.loads(await self._socket.recv())
                if told.get("id") == number:
                    assert "error" not in told, told
                    result: dict[str, Any] = told["result"]
                    return result
                self.events.append(told)

    async def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, as JSON."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def complaints(self) -> list[str]:
        """Return dialogs, exceptions and violations of the policy so far."""
        bad = {"Page.javascriptDialogOpening", "Runtime.exceptionThrown"}
        return [
            json.dumps(event)
            for event in self.events
            if event["method"] in bad
            or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
        ]


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """Run a browser with an empty profile."""
    with tempfile.TemporaryDirectory(prefix="taskd-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            async with asyncio.timeout(60):
                line = ""
                while not line.startswith("DevTools listening on "):
                    line = (await process.stderr.readline()).decode()
                    assert line, "the browser ended"
            async with connect(line.split()[-1], max_size=None, ping_interval=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.kill()
            await process.wait()
