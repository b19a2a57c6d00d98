"""Another user's task is not there, by whatever call it is looked for; over one process and through a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from taskd.client import Client
from taskd.domain.model import Role
from taskd.errors import NotFound
from tests.fronts import FRONTS, gateway
from tests.running import Server, embedded, receive
from tests.tokens import token


@dataclass
class World:
    """A server, and the tokens of those who call it."""

    server: Server
    tokens: dict[str, str]
    grpc: str

    def client(self, user: str) -> Any:
        return self.server.client(token=self.tokens[user])

    def socket(self, user: str, **query: str) -> Any:
        return self.server.socket(token=self.tokens[user], **query)


@pytest.fixture(params=FRONTS)
async def world(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[World]:
    tokens = {user: await token(database_url, user) for user in ("ann", "bob")}
    tokens["root"] = await token(database_url, "root", Role.ADMIN)
    async with contextlib.AsyncExitStack() as stack:
        settings = {"auth": "token", "cache": "memory"}
        server = await stack.enter_async_context(embedded(database_url, grpc="127.0.0.1:0", **settings))
        assert server.app is not None
        grpc = str(server.app.grpc_address)
        if request.param == "gateway":
            server = await stack.enter_async_context(gateway(grpc, upstream_token=tokens["root"], **settings))
        yield World(server, tokens, grpc)


async def test_no_call_reaches_anothers_task(world: World) -> None:
    async with world.client("ann") as ann, world.client("bob") as bob, world.client("root") as root:
        made = (await ann.post("/tasks", json={"title": "Ann's secret"})).json()
        path = f"/tasks/{made['id']}"
        # In the cache by now, and by its owner's reading.
        for _ in range(2):
            assert (await ann.get(path)).status_code == 200
            assert [task["id"] for task in (await ann.get("/tasks")).json()["tasks"]] == [made["id"]]
        etag = f'"{made["version"]}"'
        patch = {"Content-Type": "application/merge-patch+json"}
        for method, target, more in (
            ("GET", path, {}),
            ("GET", path, {"headers": {"If-None-Match": etag}}),
            ("HEAD", path, {}),
            ("PATCH", path, {"json": {"title": "Bob's"}, "headers": patch}),
            ("PATCH", path, {"json": {"title": "Bob's"}, "headers": {**patch, "If-Match": '"77"'}}),
            ("DELETE", path, {}),
            ("POST", f"{path}/cancel", {}),
            ("POST", f"{path}/retry", {}),
            ("GET", f"{path}/events", {}),
        ):
            answer = await bob.request(method, target, **more)
            # As if it were nowhere: the same words as for an id that nobody has.
            other = await bob.request(method, target.replace(made["id"], made["id"][:-2] + "00"), **more)
            assert (answer.status_code, other.status_code) == (404, 404), (method, target)
            if method != "HEAD":
                assert set(answer.json()) == set(other.json())
                assert answer.json()["detail"].replace(made["id"], "") == f"there is no task {''}"
        assert (await bob.get("/tasks")).json()["tasks"] == []
        assert (await bob.get("/tasks?owner=ann")).status_code == 403
        assert (await bob.get("/search?query=secret")).json()["results"] == []
        assert (await bob.get("/search?query=secret")).json()["total"]["value"] == 0
        # Nothing of that did anything; and an admin sees all.
        assert (await ann.get(path)).json() == made
        for query in ("/tasks", "/tasks?owner=ann"):
            assert [task["id"] for task in (await root.get(query)).json()["tasks"]] == [made["id"]]
        assert (await root.get("/tasks?owner=bob")).json()["tasks"] == []
        assert (await root.get("/search?query=secret")).json()["total"]["value"] == 1
        assert (await root.post(f"{path}/cancel")).json()["status"] == "cancelled"
        assert (await ann.get(path)).json()["status"] == "cancelled"


async def test_idempotency_keys_are_each_users_own(world: World) -> None:
    headers = {"Idempotency-Key": "once"}
    async with world.client("ann") as ann, world.client("bob") as bob:
        anns = (await ann.post("/tasks", json={"title": "A"}, headers=headers)).json()
        bobs = await bob.post("/tasks", json={"title": "B"}, headers=headers)
        assert bobs.status_code == 201
        assert (bobs.json()["owner"], bobs.json()["title"]) == ("bob", "B")
        again = (await ann.post("/tasks", json={"title": "A"}, headers=headers)).json()
        assert again["id"] == anns["id"]
        batch = {"tasks": [{"title": "B2"}]}
        made = (await bob.post("/tasks/batch", json=batch, headers={"Idempotency-Key": "many"})).json()["tasks"]
        assert [task["owner"] for task in made] == ["bob"]
        anns_batch = await ann.post("/tasks/batch", json=batch, headers={"Idempotency-Key": "many"})
        assert [task["owner"] for task in anns_batch.json()["tasks"]] == ["ann"]


async def test_two_tokens_of_one_user_are_one_owner(world: World, database_url: str) -> None:
    second = await token(database_url, "ann")
    async with world.client("ann") as ann, world.server.client(token=second) as phone:
        made = (await ann.post("/tasks", json={"title": "Mine"})).json()
        assert (await phone.get(f"/tasks/{made['id']}")).json() == made


async def events_of(socket: ClientConnection, until: str) -> list[str]:
    """Return the titles that a socket is told of, up to one."""
    titles = []
    while not titles or titles[-1] != until:
        titles.append((await receive(socket))["event"]["task"]["title"])
    return titles


async def test_sockets_are_told_of_their_users_tasks_only(world: World) -> None:
    async with world.socket("ann") as ann, world.socket("bob") as bob, world.socket("root") as root:
        welcomes = [await receive(socket) for socket in (ann, bob, root)]
        assert [welcome["user"] for welcome in welcomes] == ["ann", "bob", "root"]
        for user in ("ann", "bob", "ann", "bob"):
            async with world.client(user) as client:
                await client.post("/tasks", json={"title": f"{user}'s"})
        async with world.client("ann") as client:
            await client.post("/tasks", json={"title": "end"})
        async with world.client("bob") as client:
            await client.post("/tasks", json={"title": "end"})
        assert await events_of(ann, "end") == ["ann's", "ann's", "end"]
        assert await events_of(bob, "end") == ["bob's", "bob's", "end"]
        assert await events_of(root, "end") == ["ann's", "bob's", "ann's", "bob's", "end"]
    # And of what was before, too.
    async with world.socket("bob", after=welcomes[0]["cursor"]) as bob:
        await receive(bob)
        assert await events_of(bob, "end") == ["bob's", "bob's", "end"]


async def test_streams_are_told_of_their_users_tasks_only(world: World) -> None:
    async with world.client("bob") as bob, bob.stream("GET", "/events") as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(30):
            while "welcome" not in await anext(lines):
                pass
            for user in ("ann", "bob"):
                async with world.client(user) as client:
                    await client.post("/tasks", json={"title": f"{user}'s"})
            while True:
                line = await anext(lines)
                if line.startswith("data:") and "task" in (data := json.loads(line[5:])):
                    break
        assert data["task"]["title"] == "bob's"


async def test_grpc_keeps_owners_apart(world: World) -> None:
    async with (
        Client(world.grpc, token=world.tokens["ann"]) as ann,
        Client(world.grpc, token=world.tokens["bob"], user="ann") as bob,
    ):
        made = await ann.create("Ann's secret")
        assert made.owner == "ann"
        for call in (bob.get, bob.cancel, bob.retry, bob.delete):
            with pytest.raises(NotFound):
                await call(made.id)
        with pytest.raises(NotFound):
            await bob.update(made.id, title="Bob's")
        assert (await bob.list()).tasks == ()
        assert (await bob.search("secret")).results == ()
        events = bob.events()
        await events.start()
        await ann.create("Ann's other")
        own = await bob.create("Bob's")
        async with asyncio.timeout(30):
            _, event = await anext(events)
        assert event.task.id == own.id
