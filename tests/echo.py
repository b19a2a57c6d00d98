"""An HTTP and WebSocket echo on taskd's own connection, parser and socket classes, for foreign conformance suites.

    python -m tests.echo --port 9001

Any request for an upgrade to WebSocket, on any path, gets a socket that sends each message back; any other request,
200 with its body.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from taskd.errors import Malformed
from taskd.http1.head import Head
from taskd.http1.limits import Limits
from taskd.log import request_id_of
from taskd.runtime.supervisor import Supervisor
from taskd.web.message import Request, Response
from taskd.web.server import HttpServer
from taskd.web.upgrade import Upgrade
from taskd.ws.frames import binary_frame, text_frame
from taskd.ws.handshake import Refusal, accept, refusal
from taskd.ws.wire import Wire

LARGEST = 64 * 1024 * 1024
"""Bytes of a message or body: suites send some of 16 MiB."""

CLOSE_WITHIN = 10.0


class EchoSocket(Wire):
    """Sends each message back as it came."""

    def text(self, message: str) -> None:
        self.write(text_frame(message.encode()))

    def binary(self, message: bytes) -> None:
        self.write(binary_frame(message))

    def ending(self) -> None:
        # As the hub does with its sockets: the end is bounded.
        self._limit = asyncio.get_running_loop().call_later(CLOSE_WITHIN, self.abort)

    def lost(self) -> None:
        self._limit.cancel()


class EchoSockets:
    """Takes every request for a socket."""

    def wants(self, head: Head) -> bool:
        return True

    async def admit(self, head: Head, peer: str) -> Upgrade:
        return lambda tail, transport: self._upgrade(head, tail, transport)

    def _upgrade(self, head: Head, tail: bytes, transport: asyncio.Transport) -> asyncio.Protocol:
        name = request_id_of(head.get(b"x-request-id"))
        try:
            if head.content_length or head.chunked:
                raise Malformed("a request for an upgrade must not have a body")
            protocol = accept(head.raw, name, max_size=LARGEST)
        except (Refusal, Malformed) as error:
            transport.write(refusal(error, name))
            transport.close()
            return asyncio.Protocol()
        socket = EchoSocket(transport, protocol, behind=2 * LARGEST)
        socket.begin(tail)
        return socket


async def echo(request: Request) -> Response:
    """Answer with the request's body."""
    return Response(200, request.body, "application/octet-stream")


async def serve(host: str, port: int, stop: asyncio.Event, listening: asyncio.Future[str] | None = None) -> None:
    """Serve until `stop`; `listening` gets the address."""
    supervisor = Supervisor()
    server = HttpServer(echo, supervisor, upgrader=EchoSockets(), limits=Limits(body=LARGEST))
    await server.start(host, port)
    try:
        if listening is not None and server.address is not None:
            listening.set_result(server.address)
        await stop.wait()
    finally:
        await server.stop()
        await supervisor.stop()


async def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001)
    asked = parser.parse_args()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listening: asyncio.Future[str] = loop.create_future()
    listening.add_done_callback(lambda found: print(f"echo on {found.result()}", flush=True))
    await serve(asked.host, asked.port, stop, listening)


if __name__ == "__main__":
    asyncio.run(main())
