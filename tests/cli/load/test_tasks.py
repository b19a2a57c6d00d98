"""The tasks of a benchmark: known of from the first request on, and no longer waited for when they can't be made."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from taskd.cli.load.queue import queue
from taskd.cli.load.target import Refused, Target
from taskd.cli.load.tasks import Tasks
from tests.running import served


def silent(words: str) -> None:
    """Tell nobody how far it is."""


class Slow:
    """Answers the request that makes a task when it is let, and remembers what is deleted."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.deleted: list[bytes] = []
        self.came = asyncio.Event()
        self.answers = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await self._answer(head, reader)
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (answer[0], len(answer[1]), answer[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        if head.startswith(b"POST"):
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            self.made.append(json.loads(await reader.readexactly(length)))
            self.came.set()
            await self.answers.wait()
            return b"201 Created", b'{"id": "1", "created_at": "2026-01-01T00:00:00Z"}'
        if head.startswith(b"DELETE"):
            self.deleted.append(head.split(b" ")[1])
            return b"204 No Content", b""
        tasks = [{"id": "1", "payload": made["payload"]} for made in self.made]
        return b"200 OK", json.dumps({"tasks": tasks, "next_cursor": None}).encode()


async def test_a_first_task_whose_answer_was_not_waited_for_is_removed() -> None:
    slow = Slow()
    async with await asyncio.start_server(slow.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tasks = Tasks(Target(f"http://127.0.0.1:{port}", None, None), silent)
        beginning = asyncio.ensure_future(tasks.begin())
        await slow.came.wait()
        beginning.cancel()
        await asyncio.sleep(0)
        slow.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert await tasks.remove() == 0
        assert slow.deleted == [b"/tasks/1"]


async def test_a_queue_whose_tasks_are_refused_says_so_and_waits_for_none(database_url: str) -> None:
    class Refusing(Tasks):
        async def make(self, number: int, kind: str = "", row: str = "") -> list[str]:
            if number > 1:
                raise Refused("no more than one")
            return await super().make(number, kind, row)

    async with served(database_url) as server:
        target = Target(server.url, None, "ann")
        tasks = Refusing(target, silent)
        await tasks.begin()
        async with asyncio.timeout(30):
            [row] = await queue(target, tasks, 60, "echo", 20.0, silent)
        assert (row.value, row.fault) == (None, "no more than one")
        assert await tasks.remove() == 0
