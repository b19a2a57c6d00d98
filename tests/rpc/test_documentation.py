"""docs/grpc.md is true: its example runs and prints what it says there, and each error is in its table."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from taskd import errors
from taskd.errors import TaskdError
from taskd.rpc.calls import MOST_OPEN
from taskd.rpc.channel import MAX_ANSWER, MAX_REQUEST
from taskd.rpc.server import MAX_METADATA, MAX_STREAMS
from taskd.rpc.status import CODE, Code, reason_of
from taskd.rpc.watch import LogChanged, SlowReader
from taskd.rpc.work import StreamOver
from tests.running import embedded

PAGE = (Path(__file__).parent.parent.parent / "docs" / "grpc.md").read_text("utf-8")
((EXAMPLE, PRINTED),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)

OF_REST = {errors.NotAcceptable, errors.UnsupportedMedia, errors.Rejected}
"""Never raised where gRPC is served."""

OWN_FAULT = {errors.ConfigError, errors.StartError}
"""Told as `INTERNAL`."""


async def test_the_example(database_url: str) -> None:
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        assert server.app.grpc_address is not None
        program = EXAMPLE.replace("127.0.0.1:50051", server.app.grpc_address)
        assert program != EXAMPLE
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
    assert printed.decode() == PRINTED


def test_each_error_that_a_caller_can_get_is_in_the_table() -> None:
    rows: dict[str, str] = {}
    code = ""
    for found, reason in re.findall(r"^\| (?:`([A-Z_]+)`)? *\| `([A-Z_]+)` \|", PAGE, re.MULTILINE):
        code = found or code
        rows[reason] = code
    known = {*CODE, LogChanged, SlowReader, StreamOver} - OF_REST - OWN_FAULT
    assert rows == {
        reason_of(error): next(CODE[cls].name for cls in error.__mro__ if issubclass(cls, TaskdError) and cls in CODE)
        for error in known
    }


def test_the_limits_are_these() -> None:
    rows = dict(re.findall(r"^\| (.*?) \| (\d+)(?: (?:Mi|Ki)B|;)", PAGE, re.MULTILINE))
    assert rows == {
        "a request": str(MAX_REQUEST >> 20),
        "an answer": str(MAX_ANSWER >> 20),
        "a call's metadata": str(MAX_METADATA >> 10),
        "calls at once on one connection": str(MAX_STREAMS),
        "calls at once that have one answer, of all connections": str(MOST_OPEN),
    }
    assert Code.INTERNAL.name in PAGE
