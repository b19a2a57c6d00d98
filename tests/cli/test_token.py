"""`taskd token`, and the commands that show tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from taskd import Taskd
from taskd.domain.token import TOKEN
from tests.access.certificates import Authority
from tests.cli.test_commands import NOWHERE, taskd
from tests.running import embedded


async def test_a_token_is_made_shown_once_listed_and_revoked(database_url: str) -> None:
    at = {"TASKD_DATABASE_URL": database_url}
    made = await taskd("token", "create", "--user", "Аня", "--note", "lap\x1b[31mtop", "--days", "1.5", **at)
    assert made.code == 0, made.err
    token = made.out.strip()
    assert TOKEN.fullmatch(token)
    assert re.fullmatch(r"number 1: user Аня, until \S+ \S+ UTC. It is not shown again.\n", made.err)
    admin = json.loads((await taskd("token", "create", "--user", "root", "--role", "admin", "--json", **at)).out)
    assert TOKEN.fullmatch(admin["token"])
    assert (admin["id"], admin["user"], admin["role"], admin["expires_at"]) == (2, "root", "admin", None)
    listed = await taskd("token", "list", **at)
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["1", "user"], ["2", "admin"]]
    assert token not in listed.out
    assert "\x1b" not in listed.out
    only = await taskd("token", "list", "--user", "root", "--json", **at)
    assert json.loads(only.out) == {name: value for name, value in admin.items() if name != "token"}
    async with embedded(database_url, auth="token") as server, server.client(token=token) as ann:
        assert (await ann.get("/tasks")).status_code == 200
    gone = await taskd("token", "revoke", "1", **at)
    assert (gone.code, gone.out.splitlines()[1].split()[0]) == (0, "1")
    again = await taskd("token", "revoke", "1", "--json", **at)
    assert (again.code, again.out, again.err) == (1, "", "taskd: there is no token 1\n")
    assert (await taskd("token", "revoke", "--user", "root", **at)).code == 0
    assert (await taskd("token", "revoke", "--user", "root", **at)).code == 1
    assert len((await taskd("token", "list", **at)).out.splitlines()) == 1


async def test_what_is_asked_wrongly_is_refused_in_one_line(database_url: str) -> None:
    at = {"TASKD_DATABASE_URL": database_url}
    for words, named in (
        (["create", "--user", ""], "--user"),
        (["create", "--user", "x" * 201], "--user"),
        (["create", "--user", "a", "--note", "x" * 201], "--note"),
        (["revoke"], "--user"),
    ):
        ended = await taskd("token", *words, **at)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert named in ended.err
    for words in (["create"], ["create", "--user", "a", "--days", "0"], ["create", "--user", "a", "--role", "king"]):
        assert (await taskd("token", *words, **at)).code == 2
    assert (await taskd("token", "list", TASKD_DATABASE_URL=NOWHERE)).code == 3
    gateway = await taskd("token", "list", TASKD_ROLE="gateway", **at)
    assert (gateway.code, "a gateway has none" in gateway.err) == (2, True)


async def test_a_database_that_is_new_is_brought_up_to_date(empty_database_url: str) -> None:
    made = await taskd("token", "create", "--user", "ann", TASKD_DATABASE_URL=empty_database_url)
    assert made.code == 0, made.err


async def test_the_embedded_database_is_asked_whether_or_not_its_server_runs(tmp_path: Path) -> None:
    at = {"TASKD_DATA_DIR": str(tmp_path / "data")}
    before = await taskd("token", "create", "--user", "ann", **at)
    assert before.code == 0, before.err
    async with Taskd(data_dir=tmp_path / "data", auth="token", http="127.0.0.1:0") as app:
        meanwhile = await taskd("token", "create", "--user", "ann", **at)
        assert meanwhile.code == 0, meanwhile.err
        async with httpx.AsyncClient(base_url=f"http://{app.http_address}") as client:
            for made in (before, meanwhile):
                headers = {"Authorization": f"Bearer {made.out.strip()}"}
                assert (await client.get("/tasks", headers=headers)).status_code == 200


async def test_task_shows_its_callers_token_from_the_environment_or_a_file(database_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    mine = authority.sign("client", "ann")
    made = (await taskd("token", "create", "--user", "ann", TASKD_DATABASE_URL=database_url)).out.strip()
    (tmp_path / "token").write_text(f"{made}\n")
    settings = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.file}
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0", **settings) as server:
        assert server.app is not None
        at = ["--server", str(server.app.grpc_address), "--ca", str(authority.file)]
        at += ["--cert", str(mine[0]), "--key", str(mine[1])]
        created = await taskd("task", "create", "A title", *at, "--json", TASKD_TOKEN=made)
        assert json.loads(created.out)["owner"] == "ann"
        listed = await taskd("task", "list", *at, "--json", "--token-file", str(tmp_path / "token"))
        assert len(json.loads(listed.out)["tasks"]) == 1
        nobody = await taskd("task", "list", *at)
        assert (nobody.code, "a token is needed" in nobody.err) == (1, True)
        none = await taskd("task", "list", *at, "--token-file", str(tmp_path / "none"))
        assert (none.code, "--token-file" in none.err) == (2, True)
        half = await taskd("task", "list", *at[:-2])
        assert (half.code, "--cert and --key" in half.err) == (2, True)
        # And the health check of an image, by the server's own certificate.
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        ended = await taskd("health", "--http", server.address, *flags)
        assert (ended.code, "ok    database" in ended.out) == (0, True), ended


async def test_check_looks_at_tokens_and_certificates_and_shows_no_secret(database_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    flags = ["--database-url", database_url, "--tls-cert", str(cert), "--tls-key", str(key)]
    ended = await taskd("check", *flags)
    assert "FAIL  tokens: none yet; `taskd token create --user NAME --role admin` makes one" in ended.out
    assert re.search(r"ok    certificate: expires in \d+ days", ended.out)
    made = (await taskd("token", "create", "--user", "ann", TASKD_DATABASE_URL=database_url)).out.strip()
    ended = await taskd("check", *flags)
    assert (ended.code, "ok    tokens: there are some" in ended.out) == (0, True), ended.out
    open_ended = await taskd("check", "--database-url", database_url, "--http", "0.0.0.0:1", "--grpc", "off")
    assert "ok    certificate: none, so HTTP on 0.0.0.0:1 sends tokens that others can read" in open_ended.out
    async with embedded(database_url, auth="token", grpc="127.0.0.1:0") as server:
        assert server.app is not None
        gateway = ["--role", "gateway", "--upstream", str(server.app.grpc_address)]
        words = ["token", "create", "--user", "gw", "--role", "admin"]
        itself = (await taskd(*words, TASKD_DATABASE_URL=database_url, TASKD_TOKEN=made)).out.strip()
        for token, code in ((itself, 0), (made, 1), (made[:-4] + "0000", 1)):
            ended = await taskd("check", *gateway, "--cache", "off", TASKD_UPSTREAM_TOKEN=token)
            assert ended.code == code, ended.out
            assert token not in ended.out + ended.err
    wrong = await taskd("check", "--role", "gateway", TASKD_UPSTREAM_TOKEN=made[:-1])
    assert (wrong.code, made[:-1] in wrong.err, "TASKD_UPSTREAM_TOKEN must be" in wrong.err) == (2, False, True)
