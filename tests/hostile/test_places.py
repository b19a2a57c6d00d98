"""When all places are taken, who makes room; and when descriptors run out, what goes on."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
from collections.abc import Iterator

import asyncpg
import httpx

from tests.running import Server, served
from tests.waiting import eventually
from tests.web.serving import Client, Held, Serving, request, serving

GET = request("GET", "/")


async def ended(client: Client) -> bool:
    """Return whether the server has ended the connection; waits for it."""
    with contextlib.suppress(ConnectionError):
        return await client.rest() == b""
    return True


async def joined(found: Serving, hello: bytes = b"") -> Client:
    """Connect one more, and wait until the server has it, and has read what it says."""
    known = set(found.server._connections)
    client = await found.client()
    await eventually(lambda: set(found.server._connections) - known)
    (new,) = set(found.server._connections) - known
    client.send(hello)
    await eventually(lambda: new.phase.name != "IDLE" or not hello)
    return client


async def test_first_who_asked_nothing_makes_room_then_the_idle_then_the_unfinished() -> None:
    async with serving(max_connections=4) as found:
        unfinished = await joined(found, b"G")
        idle = await joined(found)
        assert (await idle.ask("GET", "/")).status == 200
        found.advance(2)
        longer, shorter = await joined(found), await joined(found)
        rows = []
        for victim in (longer, shorter, idle, unfinished):
            rows.append(await joined(found, b"G"))
            assert await ended(victim)
            assert found.server.connections == 4
        # All are unfinished now, and the oldest of them is next.
        await joined(found, b"G")
        assert await ended(rows[0])
        rows[1].send(b"ET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await rows[1].answer()).status == 200


async def test_who_asked_a_moment_ago_makes_no_room() -> None:
    async with serving(max_connections=1) as found:
        client = await joined(found)
        assert (await client.ask("GET", "/")).status == 200
        found.advance(0.9)
        assert await ended(await found.client())
        assert (await client.ask("GET", "/")).status == 200
        found.advance(2)
        assert (await (await found.client()).ask("GET", "/")).status == 200
        assert await ended(client)


async def test_who_is_being_answered_makes_no_room() -> None:
    held = Held()
    async with serving(held, max_connections=2) as found:
        busy = [await joined(found, GET) for _ in range(2)]
        await eventually(lambda: held.begun == 2)
        assert await ended(await found.client())
        held.go.set()
        for client in busy:
            assert (await client.answer()).status == 200


async def test_any_number_of_idle_ones_keeps_nobody_out() -> None:
    async with serving(max_connections=10) as found:
        for _ in range(5):
            for _ in range(10):
                await found.client()
            assert (await (await found.client()).ask("GET", "/")).status == 200
            found.advance(2)
        assert found.server.connections <= 10


def descriptors(server: Server) -> int:
    """Return how many a server has open."""
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def allow(server: Server, number: int) -> None:
    """Set a server's limit of descriptors while it runs (prlimit(2))."""
    assert server.process is not None
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (number, hard))


def complaints(server: Server) -> list[str]:
    """Return what a server logged that is no information."""
    return [line for line in server.output if json.loads(line)["level"] not in ("info", "debug")]


@contextlib.contextmanager
def crowd(server: Server, number: int) -> Iterator[list[socket.socket]]:
    """Connect many, and let them go at the end."""
    host, port = server.address.split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(number)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def test_with_256_descriptors_a_thousand_clients_leave_enough_for_others(database_url: str) -> None:
    async with served(database_url, descriptors=256) as server, server.client() as good:
        assert (await good.get("/tasks")).status_code == 200
        before = descriptors(server)
        with crowd(server, 1000):
            assert (await good.get("/tasks")).status_code == 200
            async with server.client() as new, server.socket():
                assert (await new.post("/tasks", json={"kind": "none", "title": "t"})).status_code == 201
            assert descriptors(server) < 200
        await eventually(lambda: descriptors(server) <= before)
        assert not complaints(server)


async def test_when_descriptors_run_out_others_are_served_and_it_heals(database_url: str) -> None:
    async with served(database_url) as server, server.client() as good:
        assert (await good.get("/tasks")).status_code == 200
        before = descriptors(server)
        allow(server, before + 5)
        with crowd(server, 200):
            for _ in range(20):
                assert (await good.get("/tasks")).status_code == 200
            # Who asked nothing makes room, so that others may come.
            async with server.client() as new:
                await eventually(lambda: answered(new))
        allow(server, 1024)
        async with server.client() as new:
            assert (await new.get("/tasks")).status_code == 200
        await eventually(lambda: descriptors(server) <= before)
        # Once a minute at most, however many were sent away.
        assert len(complaints(server)) <= 2
        assert "no connection can be taken" in complaints(server)[0]


async def answered(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/tasks")).status_code == 200
    except httpx.TransportError:
        return False


async def test_database_and_listener_come_back_when_there_are_descriptors_again(database_url: str) -> None:
    async with served(database_url, "--cache", "off") as server, server.client() as good:
        assert (await good.get("/tasks")).status_code == 200
        database = await asyncpg.connect(database_url)
        try:
            # As many as there are: what is lost can't be had again, for want of one.
            before = descriptors(server)
            with crowd(server, 3):
                await eventually(lambda: descriptors(server) == before + 3)
                allow(server, 3)
                await database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await eventually(lambda: unready(good))
                # It answers, and says what is amiss.
                assert (await good.get("/healthz")).status_code == 200
            allow(server, 1024)
            await eventually(lambda: answered(good))
            await eventually(server.ready)
            listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'LISTEN'"
            await eventually(lambda: database.fetchval(listening))
        finally:
            await database.close()
        assert len(complaints(server)) < 50


async def unready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 503
