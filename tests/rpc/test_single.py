"""Calls that are answered in one step, whatever their callers send."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from taskd.rpc.peers import Peers, TooMuchUnread
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import Service, answering, refusal_of
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


async def test_whose_turn_does_not_come_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def enter(*_: Any) -> Any:
        raise TooMuchUnread("too many requests at once on this connection", retry_after=2.0)

    monkeypatch.setattr(Peers, "enter", enter)
    async with answering(Service()) as served:
        refused = await refusal_of(served.caller.begin("GetTask", pb.GetTaskRequest(id="x")))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refused.reason, refused.retry_after) == ("SLOW_READER", 2.0)
