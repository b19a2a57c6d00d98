"""Every method that the server serves, called by every role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from taskd.domain.model import Role
from taskd.rpc.health import MOST_OF_ONE
from taskd.rpc.identity import RULES
from taskd.v1 import taskd_pb2 as pb
from tests.rpc.calling import refusal_of
from tests.running import Server, embedded
from tests.tokens import token
from tests.waiting import eventually

Code = grpc.StatusCode
OPEN = "grpc.health.v1.Health"
ALLOWED = {
    "taskd.v1.TaskService": {Role.USER, Role.ADMIN},
    "taskd.v1.WorkerService": {Role.WORKER, Role.ADMIN},
    "taskd.v1.TokenService": {Role.ADMIN},
    "grpc.reflection.v1alpha.ServerReflection": set(Role),
    "grpc.reflection.v1.ServerReflection": set(Role),
    OPEN: set(Role),
}
METHODS = [
    (service.full_name, method.name, method.client_streaming, method.server_streaming)
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
METHODS += [(f"grpc.reflection.{version}.ServerReflection", "ServerReflectionInfo", True, True)
            for version in ("v1", "v1alpha")]  # fmt: skip
METHODS += [(OPEN, "Check", False, False), (OPEN, "Watch", False, True)]


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0") as found:
        assert found.app is not None
        found.grpc = found.app.grpc_address
        yield found


def bearer(made: str | None) -> tuple[tuple[str, str], ...]:
    return () if made is None else (("authorization", f"Bearer {made}"),)


async def code_of(channel: grpc.aio.Channel, method: tuple[str, str, bool, bool], made: str | None) -> Code:
    """Return what a call of an empty message comes to; OK also for a stream that goes on."""
    service, name, asks_many, answers_many = method
    path = f"/{service}/{name}"
    metadata = (*bearer(made), ("x-taskd-user", "root"))
    try:
        if asks_many:
            many: Any = channel.stream_stream(path)(metadata=metadata, timeout=20)
            await many.write(b"")
            await many.read()
            many.cancel()
        elif answers_many:
            stream: Any = channel.unary_stream(path)(b"", metadata=metadata, timeout=20)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(path)(b"", metadata=metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method[0]}/{method[1]}")
async def test_a_method_is_for_its_roles_only(
    server: Server, database_url: str, method: tuple[str, str, bool, bool]
) -> None:
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        code = await code_of(channel, method, None)
        assert (code is Code.UNAUTHENTICATED) is (method[0] != OPEN), "without a token"
        for role in Role:
            code = await code_of(channel, method, await token(database_url, f"a-{role}", role))
            if role in ALLOWED[method[0]]:
                assert code not in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INTERNAL), role
            else:
                assert code is Code.PERMISSION_DENIED, role


async def test_every_method_that_is_served_has_a_rule_and_is_called_here(server: Server, database_url: str) -> None:
    """By reflection: what is served, and not what the source says is."""
    served = set()
    metadata = bearer(await token(database_url))
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask(**question: str) -> Any:
            call = stub.ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(**question)]), metadata=metadata
            )
            return await call.read()

        for service in (await ask(list_services="")).list_services_response.service:
            answer = await ask(file_containing_symbol=service.name)
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                served |= {
                    f"{service.name}/{method.name}"
                    for found in file.service
                    if f"{file.package}.{found.name}" == service.name
                    for method in found.method
                }
    # grpc's reflection knows the messages of v1 under the name of v1alpha only; `List` of health is not implemented.
    served.add("grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert served == RULES.keys()
    assert {f"{service}/{name}" for service, name, *_ in METHODS} == served - {f"{OPEN}/List"}


async def test_only_an_admin_sees_all_owners_events(server: Server, database_url: str) -> None:
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        call = channel.unary_unary(
            "/taskd.v1.TaskService/ListEvents", pb.ListEventsRequest.SerializeToString, pb.ListEventsResponse.FromString
        )
        request = pb.ListEventsRequest(all_owners=True)
        refusal = await refusal_of(call(request, metadata=bearer(await token(database_url))))
        assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "FORBIDDEN")
        await call(request, metadata=bearer(await token(database_url, "root", Role.ADMIN)))


async def test_callers_have_a_limit(database_url: str) -> None:
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0", rate_limit=0.1) as server:
        assert server.app is not None
        async with grpc.aio.insecure_channel(str(server.app.grpc_address)) as channel:
            call = channel.unary_unary("/taskd.v1.TaskService/ListTasks")
            metadata = bearer(await token(database_url))
            await call(b"", metadata=metadata)
            refusal = await refusal_of(call(b"", metadata=metadata))
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert 0 < refusal.retry_after <= 10


async def test_a_token_is_looked_for_in_its_own_place_only(server: Server, database_url: str) -> None:
    made = await token(database_url)
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        call = channel.unary_unary("/taskd.v1.TaskService/ListTasks")
        for pairs in (
            (("authorization", made),), (("authorization", f"Basic {made}"),), (("x-token", made),),
            (("authorization", f"Bearer {made} x"),),
        ):  # fmt: skip
            refusal = await refusal_of(call(b"", metadata=pairs))
            assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert made not in refusal.message
        await call(b"", metadata=(("authorization", f"bearer {made}"),))


async def test_where_a_proxy_stands_between_who_guesses_is_held_up_alone(database_url: str) -> None:
    made = await token(database_url)
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0", trusted_proxies="127.0.0.1") as server:
        assert server.app is not None
        async with grpc.aio.insecure_channel(str(server.app.grpc_address)) as channel:
            call = channel.unary_unary("/taskd.v1.TaskService/ListTasks")
            bad = (("authorization", "Bearer wrong"), ("x-forwarded-for", "203.0.113.6"))
            codes = [(await refusal_of(call(b"", metadata=bad))).code for _ in range(30)]
            await call(b"", metadata=(*bearer(made), ("x-forwarded-for", "203.0.113.9")))
    assert codes[:20] == [Code.UNAUTHENTICATED] * 20
    assert codes[-1] is Code.RESOURCE_EXHAUSTED


async def test_watches_of_health_are_few_since_they_need_no_token(server: Server) -> None:
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        watch: Any = channel.unary_stream(f"/{OPEN}/Watch")
        open_ones = [watch(b"") for _ in range(MOST_OF_ONE)]
        for one in open_ones:
            await one.read()
        assert await watch(b"").code() is Code.RESOURCE_EXHAUSTED
        open_ones[0].cancel()

        async def again() -> bool:
            call = watch(b"")
            try:
                return bool(await call.read() != grpc.aio.EOF)
            except grpc.aio.AioRpcError:
                return False

        await eventually(again)
        await channel.unary_unary(f"/{OPEN}/Check")(b"")


async def test_digests_are_checked(server: Server, database_url: str) -> None:
    async with grpc.aio.insecure_channel(str(server.grpc)) as channel:
        call = channel.unary_unary(
            "/taskd.v1.TokenService/FindTokens",
            pb.FindTokensRequest.SerializeToString,
            pb.FindTokensResponse.FromString,
        )
        metadata = bearer(await token(database_url, "root", Role.ADMIN))
        request = pb.FindTokensRequest(digests=[bytes(32), bytes(31)])
        assert (await refusal_of(call(request, metadata=metadata))).faults == {"digests[1]": "must be 32 bytes"}
        many = pb.FindTokensRequest(digests=[bytes(32)] * 1001)
        assert (await refusal_of(call(many, metadata=metadata))).faults == {"digests": "must have at most 1000 items"}
        assert (await call(pb.FindTokensRequest(digests=[bytes(32)]), metadata=metadata)).tokens == []
