"""The table of hostile requests over a real socket: who is refused is told so, and then the connection ends."""

from __future__ import annotations

import base64
import json

import pytest

from taskd.http1.limits import Limits
from taskd.web.message import Answer, Request, Response
from tests.http1.reading import SMALL, read
from tests.http1.rows.row import Row, Wanted
from tests.http1.test_corpora import CASES, FILE
from tests.http1.test_rows import TAIL, THEMES
from tests.waiting import eventually
from tests.web.serving import Client, Got, Serving, serving


async def back(request: Request) -> Answer:
    """Answer with what was read."""
    read = [request.head.method, request.head.target.decode("latin-1"), request.body.decode("latin-1")]
    return Response(200, json.dumps(read).encode(), "application/json")


async def final(client: Client, *, head: bool = False) -> Got:
    """Return the next answer that is not interim."""
    while (got := await client.answer(head=head)).status < 200:
        assert got.status == 100
    return got


async def play(found: Serving, row: Row) -> None:
    """Send a row and one request more, and see that it is answered as the row says."""
    client = await found.client()
    client.send(row.raw + TAIL)
    goes_on = row.status is None and not row.closed
    for wanted in (*row.wanted, *([Wanted(target=b"/tail")] if goes_on else [])):
        got = await final(client, head=wanted.method == "HEAD")
        assert got.status == 200
        if wanted.method != "HEAD":
            assert got.json() == [wanted.method, wanted.target.decode(), wanted.body.decode("latin-1")]
    if row.status is not None:
        got = await final(client)
        assert (got.status, got.get("Connection")) == (row.status, "close")
        assert got.get("Content-Type") == "application/problem+json"
        assert got.json()["status"] == row.status
    if not goes_on:
        # The client has not closed anything, and nothing more comes.
        assert await client.rest() == b""
    client.writer.close()


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.__name__.rpartition(".")[2])
async def test_a_row_over_a_socket(theme: object) -> None:
    async with serving(back, limits=SMALL) as found:
        for row in theme.ROWS:  # type: ignore[attr-defined]
            try:
                await play(found, row)
            except Exception as error:
                raise AssertionError(row.name) from error
        await eventually(lambda: found.server.connections == 0)


@pytest.mark.skipif(not CASES, reason=f"{FILE} is not there")
async def test_what_other_suites_refuse_is_refused_over_a_socket() -> None:
    async with serving(back) as found:
        for case in CASES:
            raw = base64.b64decode(case["raw"])
            told = read(raw, limits=Limits(), eof=True)
            client = await found.client()
            client.send(raw)
            # Some are only unfinished.
            client.writer.write_eof()
            statuses = []
            while len(statuses) < sum(request.whole for request in told.requests) + (told.status is not None):
                statuses.append((await final(client, head=raw.startswith(b"HEAD") and told.status is None)).status)
            assert await client.rest() == b"", case["name"]
            if case["expect"] == "reject":
                assert statuses[-1] in (400, 413, 414, 417, 431, 501, 505), case["name"]
                assert set(statuses[:-1]) <= {200}
            client.writer.close()
