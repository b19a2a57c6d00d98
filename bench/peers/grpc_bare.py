"""A bare servicer of grpc.aio, as its documentation writes them, on uvloop: it answers any GetTask with one constant.

    python -m bench.peers.grpc_bare PORT FILE

The request is read and the answer encoded for each call by the generated code; the file has the answer.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import uvloop

from taskd.v1 import taskd_pb2 as pb
from taskd.v1.taskd_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server


class Bare(TaskServiceServicer):
    """Knows one task."""

    def __init__(self, answer: pb.GetTaskResponse) -> None:
        self._answer = answer

    async def GetTask(  # type: ignore[override]
        self, request: pb.GetTaskRequest, context: grpc.aio.ServicerContext[pb.GetTaskRequest, pb.GetTaskResponse]
    ) -> pb.GetTaskResponse:
        return self._answer


async def serve(port: int, answer: bytes) -> None:
    server = grpc.aio.server()
    add_TaskServiceServicer_to_server(Bare(pb.GetTaskResponse.FromString(answer)), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    loop = asyncio.run if sys.argv[3:] == ["asyncio"] else uvloop.run
    loop(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
