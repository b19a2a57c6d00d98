"""What a gateway passes on of its clients' requests, and decides nothing by."""

from __future__ import annotations

from uuid import UUID

from taskd.rpc.messages import task_message
from taskd.v1 import taskd_pb2 as pb
from tests.fronts import gateway
from tests.rpc.peer import serving
from tests.ws.serving import make_task


async def test_the_callers_token_and_request_id_go_along() -> None:
    async with serving() as peer, gateway(peer.address, ready=False) as front:
        peer.answers["GetTask"] = pb.GetTaskResponse(task=task_message(make_task("ann")))
        async with front.client("ann") as ann:
            headers = {"Authorization": "Bearer tk_secret", "X-Request-Id": "r-1"}
            answer = await ann.get(f"/tasks/{UUID(int=1)}", headers=headers)
            assert answer.status_code == 200, answer.text
            await ann.get(f"/tasks/{UUID(int=2)}")
    sent = [metadata for name, _, metadata in peer.calls if name == "GetTask"]
    told = {name: sent[0][name] for name in ("authorization", "x-request-id", "x-taskd-user")}
    assert told == {"authorization": "Bearer tk_secret", "x-request-id": "r-1", "x-taskd-user": "ann"}
    assert "authorization" not in sent[1]
