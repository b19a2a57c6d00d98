"""`taskd health`, as a container's health check calls it; and what `taskd check` says of a gateway."""

from __future__ import annotations

import socket

from tests.cli.test_commands import taskd
from tests.fronts import gateway
from tests.running import embedded
from tests.waiting import eventually

NOWHERE = "127.0.0.1:1"


async def test_a_server_that_is_ready_is_well(database_url: str) -> None:
    async with embedded(database_url, cache="memory") as server:
        ended = await taskd("health", TASKD_HTTP=server.address)
        assert ended.code == 0
        parts = {line.removeprefix("ok    ").partition(":")[0] for line in ended.out.splitlines()}
        assert parts == {"process", "database", "listener", "workers", "cache"}
        # As it is called beside a server that listens on all addresses.
        port = server.address.rpartition(":")[2]
        assert (await taskd("health", "--http", f"0.0.0.0:{port}")).code == 0
        assert (await taskd("health", "--live", TASKD_HTTP=server.address)).code == 0


async def test_one_that_is_not_ready_lives_all_the_same() -> None:
    async with gateway(NOWHERE, ready=False) as server:
        await eventually(lambda: server.app is not None and "contact" not in str(server.app.parts.feed.fault))
        ended = await taskd("health", TASKD_HTTP=server.address)
        assert ended.code == 1
        assert "FAIL  upstream: the upstream does not answer" in ended.out.splitlines()
        assert (await taskd("health", "--live", TASKD_HTTP=server.address)).code == 0


async def test_nobody_there_is_told_by_the_code() -> None:
    for address in (NOWHERE, "[::1]:1"):
        ended = await taskd("health", "--http", address)
        assert ended.code == 3
        assert ended.err.startswith(f"taskd: no taskd answers on {address}: ")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        assert (await taskd("health", "--http", f"127.0.0.1:{port}")).code == 3
    assert (await taskd("health", "--http", "127.0.0.1:0")).code == 2


async def test_check_asks_the_upstream_of_a_gateway(database_url: str) -> None:
    words = ["check", "--role", "gateway", "--auth", "none", "--upstream"]
    async with embedded(database_url, role="api", grpc="127.0.0.1:0") as behind:
        assert behind.app is not None
        address = str(behind.app.grpc_address)
        ended = await taskd(*words, address)
        assert (ended.code, ended.err) == (0, "")
        assert f"ok    upstream: {address} answers" in ended.out.splitlines()
    ended = await taskd(*words, NOWHERE)
    assert ended.code == 3
    assert "FAIL  upstream: the upstream does not answer" in ended.out.splitlines()
