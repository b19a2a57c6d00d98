"""TLS for HTTP, sockets and gRPC; certificates of clients; renewal while clients are connected."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import ssl
import warnings
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect

from taskd.client import Client, Trust, Worker
from taskd.domain.model import Role
from taskd.errors import ConfigError, Unavailable
from taskd.tls import Tls, not_after
from tests.access.certificates import Authority
from tests.fronts import gateway
from tests.running import Server, embedded, receive, served
from tests.tokens import token
from tests.waiting import eventually
from tests.web.serving import request, serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def shown(address: str, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a server shows."""
    host, port = address.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def test_everything_is_served_by_tls(database_url: str, authority: Authority) -> None:
    cert, key = authority.sign("server")
    made = await token(database_url)
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0", tls_cert=cert, tls_key=key) as server:
        assert server.app is not None
        bearer = {"Authorization": f"Bearer {made}"}
        async with httpx.AsyncClient(verify=authority.context(), headers=bearer) as ann:
            answers = [await ann.get(f"https://{server.address}{path}") for path in ("/tasks", "/nowhere", "/readyz")]
            assert [answer.status_code for answer in answers] == [200, 404, 200]
        url = f"wss://{server.address}/ws"
        async with connect(url, ssl=authority.context(), additional_headers=bearer) as socket:
            assert (await receive(socket))["user"] == "ann"
        async with Client(str(server.app.grpc_address), token=made, trust=Trust(authority.file)) as client:
            assert (await client.create("By TLS")).owner == "ann"
        # Who does not speak it gets no answer, and neither does who does not believe it.
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(f"http://{server.address}/readyz")
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await plain.get(f"https://{server.address}/readyz")
        async with Client(str(server.app.grpc_address), token=made, timeout=5) as client:
            with pytest.raises(Unavailable):
                await client.list()


async def test_old_protocols_are_refused(database_url: str, authority: Authority) -> None:
    cert, key = authority.sign("server")
    async with embedded(database_url, tls_cert=cert, tls_key=key) as server:
        context = authority.context()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(server.address, context)
        assert await shown(server.address, authority.context())


async def test_clients_need_a_certificate_where_they_are_asked_for_one(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.sign("server")
    mine = authority.sign("client", "a-worker")
    (tmp_path / "other").mkdir()
    strange = Authority(tmp_path / "other").sign("client", "a-stranger")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.file, "grpc": "127.0.0.1:0"}
    async with embedded(database_url, **settings) as server:
        assert server.app is not None
        for own, fine in ((mine, True), (None, False), (strange, False)):
            async with httpx.AsyncClient(verify=authority.context(own)) as client:
                if fine:
                    assert (await client.get(f"https://{server.address}/readyz")).status_code == 200
                else:
                    # In TLS 1.3 the client has ended its handshake by the time it is refused.
                    with pytest.raises(httpx.TransportError):
                        await client.get(f"https://{server.address}/readyz")
            trust = Trust(authority.file, *(own or ()))
            async with Client(str(server.app.grpc_address), trust=trust, timeout=5) as caller:
                if fine:
                    await caller.list()
                else:
                    with pytest.raises(Unavailable):
                        await caller.list()


async def test_gateway_api_and_worker_trust_each_other_by_certificates(database_url: str, authority: Authority) -> None:
    cert, key = authority.sign("server")
    settings = {"auth": "token", "tls_cert": cert, "tls_key": key, "tls_client_ca": authority.file}
    itself = await token(database_url, "the gateway", Role.ADMIN)
    ann = {"Authorization": f"Bearer {await token(database_url)}"}
    mine = authority.sign("client", "ann")
    async with embedded(database_url, grpc="127.0.0.1:0", **settings) as server:
        assert server.app is not None
        upstream = str(server.app.grpc_address)
        worker = Worker(
            upstream,
            token=await token(database_url, "worker", Role.WORKER),
            trust=Trust(authority.file, *authority.sign("worker", "a-worker")),
        )
        worker.handler("quick")(lambda task, _: {"by": "a worker"})
        running = asyncio.create_task(worker.run())
        more = {"upstream_token": itself, "upstream_ca": authority.file}
        async with (
            gateway(upstream, ready=False, **settings, **more) as front,
            httpx.AsyncClient(
                base_url=f"https://{front.address}", verify=authority.context(mine), headers=ann
            ) as client,
        ):

            async def ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await eventually(ready)
            task = (await client.post("/tasks", json={"title": "T", "kind": "quick"})).json()

            async def done() -> bool:
                return bool((await client.get(f"/tasks/{task['id']}")).json()["result"] == {"by": "a worker"})

            await eventually(done)
        # Without its certificate a gateway gets no answer.
        async with (
            gateway(upstream, ready=False, auth="token", **more) as front,
            httpx.AsyncClient(base_url=front.url, headers=ann) as client,
        ):
            assert (await client.get("/tasks")).status_code == 503
        await worker.stop(5)
        await running


async def test_a_renewed_certificate_is_shown_after_a_hangup_and_a_bad_one_never(
    database_url: str, authority: Authority
) -> None:
    cert, key = authority.sign("server")
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    context = authority.context()
    async with served(database_url, "--grpc", "127.0.0.1:0", *flags, verify=context) as server:
        assert server.process is not None
        first = await shown(server.address, context)
        assert await grpc_shown(server, authority) == first
        async with httpx.AsyncClient(base_url=f"https://{server.address}", verify=context) as stays:
            assert (await stays.get("/readyz")).status_code == 200
            authority.sign("server")
            assert await shown(server.address, context) == first
            server.process.send_signal(signal.SIGHUP)
            await eventually(lambda: any("SIGHUP" in line for line in server.output))
            second = await shown(server.address, context)
            assert second != first
            assert await grpc_shown(server, authority) == second
            # Who was connected stays so.
            assert (await stays.get("/readyz")).status_code == 200
            key.write_text("not a key")
            server.process.send_signal(signal.SIGHUP)
            await eventually(lambda: any("not renewed" in line for line in server.output))
            assert "TASKD_TLS_KEY" in server.output[-1]
            assert await shown(server.address, context) == second
            assert await grpc_shown(server, authority) == second
        assert await server.terminate() == 0


async def grpc_shown(server: Server, authority: Authority) -> bytes:
    """Return the certificate that gRPC shows, once a call has gone well with it."""
    context = authority.context()
    context.set_alpn_protocols(["h2"])
    assert server.grpc is not None
    async with Client(server.grpc, trust=Trust(authority.file)) as client:
        await client.list()
    return await shown(server.grpc, context)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [("cert", "TASKD_TLS_CERT"), ("key", "TASKD_TLS_KEY"), ("client_ca", "TASKD_TLS_CLIENT_CA"),
     ("other", "TASKD_TLS_KEY")],
)  # fmt: skip
@pytest.mark.parametrize("content", ["missing", "garbage"])
def test_a_file_that_is_none_stops_the_start(
    authority: Authority, tmp_path: Path, wrong: str, named: str, content: str
) -> None:
    cert, key = authority.sign("server")
    files = {"cert": cert, "key": key, "client_ca": authority.file}
    if wrong == "other":
        files["key"] = authority.sign("another")[1]
    else:
        files[wrong] = tmp_path / "wrong"
        if content == "garbage":
            files[wrong].write_bytes(b"\xff not PEM")
    with pytest.raises(ConfigError, match=named) as caught:
        Tls(**files)
    assert str(caught.value).isprintable()


def test_a_key_with_a_password_is_refused_without_asking(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = authority.sign("server")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="TASKD_TLS_KEY"):
        Tls(cert, key)


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2120])
def test_the_end_of_a_certificate_is_read_from_it(year: int) -> None:
    end = datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    made = trustme.CA().issue_cert("localhost", not_after=end)
    assert not_after(b"a word before\n" + made.cert_chain_pems[0].bytes()) == end


async def test_who_does_not_end_the_handshake_makes_room_and_is_cut_off(authority: Authority) -> None:
    tls = Tls(*authority.sign("server"))
    async with serving(max_connections=5, tls=tls) as found:
        silent = [await found.client() for _ in range(12)]
        await eventually(lambda: found.server.connections == 5)
        context = authority.context()
        host, port = str(found.server.address).rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(request("GET", "/"))
        assert b"200" in await reader.readline()
        found.clock.now += found.server.times.head
        found.server.tick()
        await eventually(lambda: found.server.connections == 1)
        for client in silent:
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""
        writer.close()


async def test_garbage_on_the_port_and_slow_handshakes_hold_up_nobody(database_url: str, authority: Authority) -> None:
    cert, key = authority.sign("server")
    async with embedded(database_url, tls_cert=cert, tls_key=key, grpc="127.0.0.1:0") as server:
        assert server.app is not None
        for address in (server.address, str(server.app.grpc_address)):
            host, port = address.rsplit(":", 1)
            writers = []
            for garbage in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(garbage)
                writers.append(writer)
            async with httpx.AsyncClient(verify=authority.context()) as client:
                assert (await client.get(f"https://{server.address}/readyz")).status_code == 200
            async with Client(str(server.app.grpc_address), trust=Trust(authority.file)) as caller:
                await caller.list()
            for writer in writers:
                writer.close()
