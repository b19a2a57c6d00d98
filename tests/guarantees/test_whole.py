"""One task on its whole way: in at a gateway, through an api process, to a worker in Node.js, and back to a socket."""

from __future__ import annotations

from tests.fronts import gateway
from tests.node.programs import needs_node, started
from tests.running import embedded, receive


@needs_node
async def test_a_task_goes_from_a_gateway_to_a_worker_in_another_language_and_back(database_url: str) -> None:
    async with (
        embedded(database_url, role="api", grpc="127.0.0.1:0", cache="memory") as api,
        gateway(api.app.grpc_address if api.app else None, cache="memory") as front,
        started("worker.js", api.app.grpc_address if api.app else "", "worker") as worker,
        front.client("ann") as ann,
        front.socket("ann") as socket,
    ):
        await worker.next("welcome")
        assert (await receive(socket))["type"] == "welcome"
        answer = await ann.post("/tasks", json={"title": "Через шлюз", "kind": "node.echo", "payload": {"n": 2**53}})
        assert answer.status_code == 201, answer.text
        task = answer.json()

        told = []
        while not told or told[-1]["type"] != "done":
            frame = await receive(socket)
            assert frame["type"] == "event"
            told.append(frame["event"])
        assert [event["type"] for event in told if event["type"] != "progress"] == ["created", "started", "done"]
        assert {event["task"]["id"] for event in told} == {task["id"]}
        assert [event["task"]["version"] for event in told] == list(range(1, len(told) + 1))
        assert told[-1]["task"]["result"] == {"n": 2**53}

        # What the socket told is what is read, here and at the api, and found by its words.
        read = await ann.get(answer.headers["Location"])
        assert read.json() == told[-1]["task"]
        async with api.client("ann") as direct:
            assert (await direct.get(answer.headers["Location"])).content == read.content
        [found] = (await ann.get("/search", params={"query": "шлюзами"})).json()["results"]
        assert found["task"] == read.json()
        assert found["highlights"]["title"] == "Через <mark>шлюз</mark>"
        history = (await ann.get(f"/tasks/{task['id']}/events")).json()["events"]
        assert history == told
