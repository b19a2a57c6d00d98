"""What a gateway passes on of its clients' requests."""

from __future__ import annotations

from uuid import UUID

from taskd.rpc.messages import task_message
from taskd.v1 import taskd_pb2 as pb
from tests.fronts import gateway
from tests.rpc.peer import serving
from tests.ws.serving import make_task


async def test_the_callers_name_and_request_id_go_along() -> None:
    async with serving() as peer, gateway(peer.address, ready=False) as front:
        peer.answers["GetTask"] = pb.GetTaskResponse(task=task_message(make_task("ann")))
        async with front.client("ann") as ann:
            answer = await ann.get(f"/tasks/{UUID(int=1)}", headers={"X-Request-Id": "r-1"})
            assert answer.status_code == 200, answer.text
    sent = [metadata for name, _, metadata in peer.calls if name == "GetTask"]
    assert {name: sent[0][name] for name in ("x-request-id", "x-taskd-user")} == {
        "x-request-id": "r-1", "x-taskd-user": "ann"
    }  # fmt: skip
