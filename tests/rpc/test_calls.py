"""What every call passes through, whatever service it is for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest

from taskd import log
from taskd.domain.model import User
from taskd.errors import Fault, Forbidden, Invalid, NotFound, Unavailable
from taskd.v1 import taskd_pb2 as pb
from tests.gates import Broken
from tests.rpc.calling import Service, answering, calling, end_of, refusal_of, with_deadline
from tests.waiting import eventually

Code = grpc.StatusCode
GET = pb.GetTaskRequest(id="1")
WATCH = pb.WatchTasksRequest()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def who(user: User, request: Any) -> pb.GetTaskResponse:
    """Answer with who calls, and for which request."""
    return pb.GetTaskResponse(task=pb.Task(owner=user.name, title=log.request_id.get(), id=request.id))


async def stay(user: User, request: Any, send: Any) -> None:
    """Answer once, and never end."""
    await send(pb.WatchTasksResponse(cursor=f"{user.name} {log.request_id.get()}"))
    await asyncio.Event().wait()


def failing(error: Exception) -> Any:
    """Return a call with one answer, or with many, that fails."""

    async def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ([], "anonymous"),
        ([("x-taskd-user", "ann")], "ann"),
        ([("x-taskd-user-bin", "Аня".encode())], "Аня"),
    ],
)
async def test_the_user_is_who_the_caller_claims_to_be(metadata: Any, name: str) -> None:
    async with answering(Service(get_task=who)) as served:
        served.caller.metadata = ()
        assert (await served.caller.begin("GetTask", GET, metadata)).task.owner == name


@pytest.mark.parametrize(
    "metadata", [[("x-taskd-user", "")], [("x-taskd-user", "a" * 201)], [("x-taskd-user-bin", b"\xff")]]
)
async def test_a_name_that_no_owner_can_have_is_refused(metadata: Any) -> None:
    async with answering(Service(get_task=who)) as served:
        served.caller.metadata = ()
        refusal = await refusal_of(served.caller.begin("GetTask", GET, metadata))
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "VALIDATION")
    assert refusal.faults.keys() == {"x-taskd-user"}


@pytest.mark.parametrize(("given", "taken"), [("r-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
async def test_the_request_id_comes_back_first_of_all(given: str, taken: bool) -> None:
    async with answering(Service(get_task=who, watch_tasks=stay)) as served:
        one = served.caller.begin("GetTask", GET, [("x-request-id", given)])
        many = served.caller.begin("WatchTasks", WATCH, [("x-request-id", given)])
        for call, seen in ((one, (await one).task.title), (many, (await many.read()).cursor.removeprefix("ann "))):
            sent = dict(await call.initial_metadata())["x-request-id"]
            assert sent == seen
            assert (sent == given) is taken
            assert sent
        many.cancel()


async def test_a_refused_call_has_its_id_too() -> None:
    async with answering(Service(get_task=failing(NotFound("no")))) as served:
        call = served.caller.begin("GetTask", GET, [("x-request-id", "r-2")])
        await refusal_of(call)
        assert dict(await call.initial_metadata())["x-request-id"] == "r-2"


async def test_an_error_is_its_status_with_details() -> None:
    fault = Fault("task.title", "must be given")
    service = Service(get_task=failing(Invalid([fault])), watch_tasks=failing(Forbidden("not you")))
    async with answering(service) as served:
        one = await refusal_of(served.caller.begin("GetTask", GET))
        many = await end_of(served.caller.begin("WatchTasks", WATCH))
    assert (one.code, one.reason, one.message) == (
        Code.INVALID_ARGUMENT, "VALIDATION", "task.title: must be given"
    )  # fmt: skip
    assert one.faults == {fault.field: fault.message}
    assert (many.code, many.reason, many.message) == (Code.PERMISSION_DENIED, "FORBIDDEN", "not you")
    assert "grpc-retry-pushback-ms" not in one.trailers


async def test_an_outage_says_when_to_come_back_and_that_channels_are_not_to_by_themselves() -> None:
    service = Service(get_task=failing(Unavailable("away", retry_after=2.5)))
    async with answering(service) as served:
        refusal = await refusal_of(served.caller.begin("GetTask", GET))
    assert (refusal.code, refusal.reason, refusal.retry_after) == (Code.UNAVAILABLE, "UNAVAILABLE", 2.5)
    assert refusal.trailers["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.parametrize("where", ["service", "identify"])
async def test_of_a_bug_the_log_has_all_and_the_caller_nothing(where: str, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(get_task=failing(ZeroDivisionError("the inside")))
    gate = Broken() if where == "identify" else None
    async with answering(service, gate=gate) as served:
        refusal = await refusal_of(served.caller.begin("GetTask", GET, [("x-request-id", "r-3")]))
        assert served.counted("TaskService/GetTask", "INTERNAL") == 1
    assert (refusal.code, refusal.reason) == (Code.INTERNAL, "INTERNAL")
    assert "inside" not in f"{refusal.message}{refusal.trailers}"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "TaskService/GetTask failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_what_is_no_message_is_the_callers_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with answering(Service(get_task=who, watch_tasks=stay)) as served:
        channel = served.caller.channel
        refusals = [
            await refusal_of(channel.unary_unary("/taskd.v1.TaskService/GetTask")(b"\xff")),
            await end_of(channel.unary_stream("/taskd.v1.TaskService/WatchTasks")(b"\xff")),
        ]
    for refusal in refusals:
        assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "MALFORMED")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_each_call_is_counted_once_with_its_code_and_one_with_one_answer_is_timed() -> None:
    service = Service(get_task=who, list_tasks=failing(NotFound("no")), watch_tasks=stay)
    async with answering(service) as served:
        for _ in range(3):
            await served.caller.begin("GetTask", GET)
        await served.caller.refused("ListTasks")
        watch = served.caller.begin("WatchTasks", WATCH)
        await watch.read()
        watch.cancel()
        await eventually(lambda: served.counted("TaskService/WatchTasks", "CANCELLED") == 1)
        counted = {labels: one.value for labels, one in served.catalog.grpc_requests.series().items() if one.value}
        timed = {labels[0]: one.count for labels, one in served.catalog.grpc_seconds.series().items() if one.count}
    assert counted == {
        ("TaskService/GetTask", "OK"): 3,
        ("TaskService/ListTasks", "NOT_FOUND"): 1,
        ("TaskService/WatchTasks", "CANCELLED"): 1,
    }
    assert timed == {"TaskService/GetTask": 3, "TaskService/ListTasks": 1}


@pytest.mark.parametrize("method", ["/taskd.v1.TaskService/Nothing", "/nothing/at.all", "/x"])
async def test_what_does_not_exist_is_one_method_to_the_metrics(method: str) -> None:
    async with answering(Service()) as served:
        for number in range(3):
            refusal = await refusal_of(served.caller.channel.unary_unary(f"{method}{number}")(b"\xff"))
            assert refusal.code is Code.UNIMPLEMENTED
        assert served.counted("other", "UNIMPLEMENTED") == 3
        assert not [labels for labels in served.catalog.grpc_requests.series() if "othing" in labels[0]]


async def test_a_call_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskd.grpc")
    caplog.handler.addFilter(lambda record: setattr(record, "request_id", log.request_id.get()) or True)
    async with answering(Service(get_task=who)) as served:
        await served.caller.begin("GetTask", GET, [("traceparent", TRACE), ("x-request-id", "r-4")])
        await served.caller.begin("GetTask", GET, [("traceparent", "no trace")])
    first, second = (record for record in caplog.records if record.name == "taskd.grpc")
    facts: Any = first.__dict__["taskd"]
    assert (first.getMessage(), first.__dict__["request_id"]) == ("TaskService/GetTask OK", "r-4")
    assert (facts["user"], facts["code"], facts["traceparent"]) == ("ann", "OK", TRACE)
    assert facts["milliseconds"] >= 0
    assert "traceparent" not in second.__dict__["taskd"]


@pytest.mark.parametrize("how", ["cancelled", "deadline", "closed"])
async def test_a_call_whose_caller_is_gone_stops(how: str, caplog: pytest.LogCaptureFixture) -> None:
    here, ended = asyncio.Event(), asyncio.Event()

    async def work(*_: Any) -> Any:
        here.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def is_here() -> bool:
        return here.is_set()

    async with answering(Service(get_task=work)) as served, calling(served.caller.channel_address) as other:
        if how == "deadline":
            await with_deadline(lambda seconds: other.begin("GetTask", GET, timeout=seconds), is_here)
        else:
            call = other.begin("GetTask", GET)
            await here.wait()
        if how == "cancelled":
            call.cancel()
        elif how == "closed":
            await other.channel.close()
        async with asyncio.timeout(30):
            await ended.wait()
        code = "DEADLINE_EXCEEDED" if how == "deadline" else "CANCELLED"
        await eventually(lambda: served.counted("TaskService/GetTask", code) >= 1)
        await served.calls.idle(30)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_caller_that_goes_while_it_is_being_answered_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def pour(user: User, request: Any, send: Any) -> None:
        while True:
            await send(b"\x12\x80\x80\x04" + b"x" * 65536)

    async with answering(Service(watch_tasks=pour)) as served:
        for number in range(20):
            async with calling(served.caller.channel_address) as other:
                call = other.begin("WatchTasks", WATCH)
                await call.read()
                if number % 2:
                    call.cancel()
        await eventually(lambda: served.counted("TaskService/WatchTasks", "CANCELLED") == 20)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_what_grpc_says_of_a_call_that_is_over_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    over = failing(grpc.aio.UsageError("RPC already finished."))
    async with answering(Service(get_task=over)) as served:
        call = served.caller.begin("GetTask", GET)
        await eventually(lambda: served.counted("TaskService/GetTask", "CANCELLED") == 1)
        call.cancel()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_more_calls_at_once_than_there_may_be_are_sent_away_and_streams_are_none_of_them() -> None:
    held, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def work(*_: Any) -> pb.GetTaskResponse:
        begun.release()
        await held.wait()
        return pb.GetTaskResponse()

    async with answering(Service(get_task=work, watch_tasks=stay), most_open=2) as served:
        watches = [served.caller.begin("WatchTasks", WATCH) for _ in range(5)]
        for watch in watches:
            await watch.read()
        calls = [served.caller.begin("GetTask", GET) for _ in range(2)]
        for _ in calls:
            await begun.acquire()
        refusal = await refusal_of(served.caller.begin("GetTask", GET))
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")
        held.set()
        for call in calls:
            await call
        await served.caller.begin("GetTask", GET)
        for watch in watches:
            watch.cancel()


async def test_calls_for_pages_leave_half_of_the_places_to_others() -> None:
    held, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def work(*_: Any) -> pb.ListTasksResponse:
        begun.release()
        await held.wait()
        return pb.ListTasksResponse()

    async with answering(Service(list_tasks=work, get_task=who), most_open=4) as served:
        calls = [served.caller.begin("ListTasks", pb.ListTasksRequest()) for _ in range(3)]
        for _ in calls:
            await begun.acquire()
        assert (await served.caller.refused("ListTasks")).code is Code.UNAVAILABLE
        await served.caller.begin("GetTask", GET)
        held.set()
        for call in calls:
            await call
        await served.caller.begin("ListTasks", pb.ListTasksRequest())


async def test_a_service_without_a_method_of_the_proto_is_not_served() -> None:
    class Half:
        async def get_task(self, *_: Any) -> Any: ...

    async with answering(Service()) as served:
        with pytest.raises(AttributeError):
            served.calls.handlers(pb.DESCRIPTOR.services_by_name["TaskService"], Half())
