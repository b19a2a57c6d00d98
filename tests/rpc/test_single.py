"""Calls that are answered in one step, whatever their callers send."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rpc.calling import Service, answering
from tests.rpc.frames import DATA, EMPTY, END_STREAM, HEADERS, RESET, begin, connected, frame

PATH = b"/taskd.v1.TaskService/GetTask"


@pytest.mark.parametrize("data", [b"", EMPTY[:3], b"\0\0\0\0\7half"], ids=["nothing", "half a head", "half a message"])
async def test_a_call_that_ends_before_its_message_does_is_refused(data: bytes) -> None:
    async def work(*_: Any) -> Any:
        raise AssertionError("there was no message")

    async with answering(Service(get_task=work)) as served, connected(served.caller.channel_address) as raw:
        await raw.send(begin(PATH, (b"x-taskd-user", b"ann")), frame(DATA, END_STREAM, 1, data))
        kind, stream, payload = await raw.answering()
        while stream != 1 or kind not in (HEADERS, RESET):
            kind, stream, payload = await raw.answering()
        assert kind == HEADERS
        assert b"the call ends before its message does" in payload
