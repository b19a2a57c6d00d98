"""Who is connected, who gives way, and that nothing of them is left."""

import asyncio
import gc
import os
import random
from typing import Any

import pytest

from taskd.domain.model import Role, User
from taskd.ws.registry import Registry
from tests.waiting import eventually
from tests.ws.serving import Serving, closed, make_task, receive, serving


def timers() -> int:
    loop: Any = asyncio.get_running_loop()
    # uvloop does not tell.
    return sum(not handle.cancelled() for handle in getattr(loop, "_scheduled", ()))


def footprint(served: Serving) -> dict[str, int]:
    gc.collect()
    hub = served.hub
    return {
        "tasks": len(asyncio.all_tasks()),
        "timers": timers(),
        "files": len(os.listdir("/proc/self/fd")),
        "connections": hub.connections,
        "sockets": hub.sockets,
        "users": len(hub._registry._users),
        "pings": len(hub._pings),
        "pongs": len(hub._pongs),
        "closing": len(hub._closing),
    }


@pytest.mark.parametrize("resumes", [False, True])
async def test_a_thousand_reconnects_leave_one_connection_and_nothing_else(resumes: bool) -> None:
    async with serving() as served:
        query = {"client": "tab"} | ({"after": served.cursor(0)} if resumes else {})
        served.log.write(make_task())
        socket = await served.socket(**query)
        await receive(socket)
        if resumes:
            await receive(socket)
        await eventually(lambda: footprint(served)["connections"] == 1)
        before = footprint(served)
        for number in range(1000):
            old, socket = socket, await served.socket(**query)
            await receive(socket)
            if number % 2:
                assert await closed(old) == (4000, "replaced")
            else:
                old.transport.abort()
        await eventually(lambda: footprint(served) == before)
        assert served.hub.opened == 1001
        assert served.hub.closed.total() == 1000
        if resumes:
            assert (await receive(socket))["type"] == "event"
        served.log.write(make_task(number=2))
        assert (await receive(socket))["event"]["task"]["id"].endswith("2")
        await socket.close()


async def test_the_new_one_is_registered_before_the_old_one_is_closed() -> None:
    async with serving() as served, served.socket() as old:
        await receive(old)
        async with served.socket() as new:
            assert (await receive(new))["type"] == "welcome"
            assert served.hub.connections == 1
            assert await closed(old) == (4000, "replaced")
            assert served.hub.connections == 1
            served.log.write(make_task())
            assert (await receive(new))["type"] == "event"


async def test_a_replaced_one_that_never_answers_neither_stays_nor_removes_its_successor() -> None:
    async with serving() as served:
        _, writer = await mute(served)
        async with served.socket() as new:
            await receive(new)
            assert (served.hub.connections, served.hub.sockets) == (1, 2)
            served.advance(5)
            await eventually(lambda: served.hub.sockets == 1)
            assert served.hub.connections == 1
            served.log.write(make_task())
            assert (await receive(new))["type"] == "event"
        writer.close()


async def mute(served: Serving, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return an open socket whose client never reads a frame."""
    reader, writer = await served.raw()
    writer.write(
        f"GET /ws{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


class Member:
    def __init__(self, user: User, client: str) -> None:
        self.user = user
        self.client = client


@pytest.mark.parametrize("seed", range(20))
def test_the_registry_holds_what_it_should_in_whatever_order_ends_come(seed: int) -> None:
    chance = random.Random(seed)
    registry: Registry[Member] = Registry(3)
    model: dict[tuple[str, str], Member] = {}
    ended: list[Member] = []
    for _ in range(500):
        if ended and chance.random() < 0.5:
            member = ended.pop(chance.randrange(len(ended)))
            there = model.get((member.user.name, member.client)) is member
            assert registry.unregister(member) is there
            if there:
                del model[member.user.name, member.client]
        else:
            member = Member(User(chance.choice("ab"), chance.choice(list(Role))), chance.choice("12345"))
            displaced = registry.register(member)
            old = model.pop((member.user.name, member.client), None)
            same_user = [other for other in model.values() if other.user.name == member.user.name]
            model[member.user.name, member.client] = member
            if old is None and len(same_user) == 3:
                old = same_user[0]
                del model[old.user.name, old.client]
                assert displaced is not None
                assert displaced.code == 4001
            assert (displaced and displaced.member) is old
            ended.append(member)
        assert registry.all() == sorted(model.values(), key=lambda m: list(registry._users).index(m.user.name))
        assert len(registry) == len(model)
        assert set(registry.seeing_all()) == {member for member in model.values() if member.user.sees_all}


async def test_one_more_than_allowed_closes_the_oldest() -> None:
    async with serving(per_user=2) as served:
        sockets = {}
        for name in ("one", "two"):
            sockets[name] = await served.socket(client=name)
            await receive(sockets[name])
        other = await served.socket("bob", client="one")
        # A replacement is the youngest, so "two" is the oldest then.
        sockets["one again"] = await served.socket(client="one")
        assert await closed(sockets["one"]) == (4000, "replaced")
        sockets["three"] = await served.socket(client="three")
        assert await closed(sockets["two"]) == (4001, "too many connections")
        assert served.hub.connections == 3
        assert served.hub.closed == {"replaced": 1, "too many connections": 1}
        for socket in (sockets["one again"], sockets["three"], other):
            await socket.close()


async def test_an_event_goes_to_its_owner_and_to_who_sees_all() -> None:
    async with (
        serving() as served,
        served.socket("ann", client="1") as first,
        served.socket("ann", client="2") as second,
        served.socket("bob") as bob,
        served.socket("root") as root,
    ):
        for socket in (first, second, bob, root):
            await receive(socket)
        served.log.write(make_task("ann"), make_task("bob", number=2), make_task("root", number=3))
        served.log.write(make_task("bob", number=4))

        async def owners(socket: Any, count: int) -> list[str]:
            return [(await receive(socket))["event"]["task"]["owner"] for _ in range(count)]

        assert await owners(first, 1) == await owners(second, 1) == ["ann"]
        assert await owners(bob, 2) == ["bob", "bob"]
        assert await owners(root, 4) == ["ann", "bob", "root", "bob"]
        assert served.hub.events_sent == 8


async def test_a_client_whose_pong_comes_stays_and_another_is_closed() -> None:
    async with serving() as served, served.socket("live") as socket:
        await receive(socket)
        reader, writer = await mute(served, "?user=dead")
        served.advance(24)
        assert len(served.hub._pongs) == 0
        served.advance(1)
        await eventually(lambda: len(served.hub._pongs) == 1)
        served.advance(9)
        assert served.hub.connections == 2
        served.advance(1)
        assert served.hub.connections == 1
        assert served.hub.closed == {"no pong": 1}
        served.advance(5)
        await eventually(lambda: served.hub.sockets == 1)
        assert b"\x89\x00" in await reader.read()
        writer.close()
        served.log.write(make_task("live"))
        assert (await receive(socket))["type"] == "event"
        served.advance(25)
        await eventually(lambda: len(served.hub._pongs) == 0)


async def test_who_leaves_with_a_ping_unanswered_leaves_no_deadline() -> None:
    async with serving() as served:
        _, writer = await mute(served)
        served.advance(25)
        assert len(served.hub._pongs) == 1
        writer.transport.abort()
        await eventually(lambda: served.hub.sockets == 0)
        assert (len(served.hub._pongs), len(served.hub._pings), len(served.hub._closing)) == (0, 0, 0)
        assert served.hub.closed == {"lost": 1}


async def test_stopping_at_once_drops_all() -> None:
    async with serving() as served:
        _, writer = await mute(served)
        await served.hub.stop(0)
        assert served.hub.sockets == 0
        writer.close()


async def test_stopping_closes_all_and_drops_who_does_not_answer() -> None:
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        _, writer = await mute(served, "?user=mute")
        stopping = asyncio.ensure_future(served.hub.stop(within=0.2))
        assert await closed(socket) == (1001, "shutdown")
        await stopping
        assert (served.hub.connections, served.hub.sockets) == (0, 0)
        assert served.hub.closed == {"shutdown": 2}
        assert not served.log.listeners
        await served.hub.stop()
        writer.close()


async def test_another_log_asks_all_to_come_again() -> None:
    async with serving() as served, served.socket() as socket:
        await receive(socket)
        served.hub.reset()
        assert await closed(socket) == (1012, "log restarted")
        served.hub.start()
        assert len(served.log.listeners) == 1


async def test_those_that_are_closing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.ws.hub.MAX_CLOSING", 3)
    async with serving() as served:
        writers = [(await mute(served))[1] for _ in range(8)]
        await eventually(lambda: served.hub.sockets == 4)
        for writer in writers:
            writer.close()


async def test_the_timer_runs_while_there_are_sockets() -> None:
    async with serving() as served:
        idle = timers()
        async with served.socket() as socket:
            await receive(socket)
            assert served.hub._timer is not None
        await eventually(lambda: served.hub._timer is None)
        assert timers() <= idle
