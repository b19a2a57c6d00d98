"""The cases of the Autobahn suite, where they are at hand: all against an echo, and without one against `/ws`."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from typing import Any

import pytest

from tests.echo import serve
from tests.running import embedded
from tests.ws.player import CORPORA, Seen, allowed, closes, corpus, faults_of, pieces_of, play

CASES = corpus()
SILENT = [case for case in CASES if not case["needs_echo"]]
AT_ONCE = 8

pytestmark = pytest.mark.skipif(not CASES, reason=f"no ws_cases.json in {CORPORA}")


def complete(case: dict[str, Any], seen: Seen, *, greeted: bool) -> bool:
    """Return whether a case is played, but for the close that it leaves to the player."""
    return not closes(case) and seen.events[greeted:] in allowed(case) and len(seen.events) >= greeted


async def played(address: str, path: str, cases: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Seen]]:
    """Play cases, some at once."""
    few = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, case: dict[str, Any]) -> tuple[dict[str, Any], Seen]:
        async with few:
            # Clients of their own: one of the same name would take the other's place.
            done = partial(complete, case, greeted=path == "/ws")
            return case, await play(address, pieces_of(case), f"{path}?user=ann&client=case-{number}", done)

    return await asyncio.gather(*(one(number, case) for number, case in enumerate(cases)))


async def test_every_case_holds_against_an_echo() -> None:
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("127.0.0.1", 0, stop, listening))
    found = await played(await listening, "/", CASES)
    stop.set()
    await serving
    assert len(found) == 247
    assert not {case["id"]: faults for case, seen in found if (faults := faults_of(case, seen))}


def without_welcome(seen: Seen) -> Seen:
    """Take off the message with which `/ws` greets."""
    (kind, text, binary), *rest = seen.events
    assert (kind, binary) == ("message", False)
    assert json.loads(base64.b64decode(text))["type"] == "welcome"
    return Seen(rest, seen.close, seen.reason, seen.faults)


async def test_every_case_that_needs_no_echo_holds_against_the_event_socket(database_url: str) -> None:
    async with embedded(database_url, ws_connections_per_user=10_000) as server:
        found = [(case, without_welcome(seen)) for case, seen in await played(server.address, "/ws", SILENT)]
    assert len(found) == 140
    assert not {case["id"]: faults for case, seen in found if (faults := faults_of(case, seen))}


async def test_no_case_makes_the_event_socket_fail(database_url: str) -> None:
    async with embedded(database_url, ws_connections_per_user=10_000) as server:
        found = await played(server.address, "/ws", [case for case in CASES if case["needs_echo"]])
    # Its messages are not those of the cases: 1008, or what is wrong with the frames; never the server's own fault.
    wrong = {case["id"]: (seen.close, seen.faults) for case, seen in found if seen.close == 1011 or seen.faults}
    assert not wrong
