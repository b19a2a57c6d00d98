"""What RFC 6455 demands of whoever reads frames: a row for each rule, with its clause, whole and byte by byte."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.echo import serve
from tests.ws.player import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, play
from tests.ws.serving import serving

HI = "hi ä€😀".encode()
BAD = b"\xce\xba\xed\xa0\x80"
"""Its last three bytes are a surrogate (RFC 3629 3)."""


def echo(data: bytes, binary: bool = False) -> tuple[Any, ...]:
    return ("message", base64.b64encode(data).decode(), binary)


def pong(data: bytes) -> tuple[Any, ...]:
    return ("pong", base64.b64encode(data).decode())


def fragments(opcode: int, *parts: bytes) -> bytes:
    """Return one message in as many fragments."""
    last = len(parts) - 1
    return b"".join(frame(CONT if n else opcode, part, fin=n == last) for n, part in enumerate(parts))


GOOD: list[tuple[str, str, bytes, list[tuple[Any, ...]]]] = [
    ("5.6", "text", frame(TEXT, HI), [echo(HI)]),
    ("5.6", "no text at all", frame(TEXT), [echo(b"")]),
    ("5.6", "binary, which need not be UTF-8", frame(BINARY, BAD), [echo(BAD, True)]),
    ("5.2", "125 bytes", frame(TEXT, b"x" * 125), [echo(b"x" * 125)]),
    ("5.2", "126 bytes: 16 bits of length", frame(TEXT, b"x" * 126), [echo(b"x" * 126)]),
    ("5.2", "65535 bytes", frame(BINARY, b"x" * 65535), [echo(b"x" * 65535, True)]),
    ("5.2", "65536 bytes: 64 bits of length", frame(BINARY, b"x" * 65536), [echo(b"x" * 65536, True)]),
    # A sender must use the fewest bytes; nothing is gained by refusing one that does not.
    ("5.2", "a length in more bytes than it needs", b"\x81\xfe\x00\x01" + bytes(4) + b"a", [echo(b"a")]),
    ("5.4", "fragments", fragments(TEXT, b"a", b"b", b"c"), [echo(b"abc")]),
    ("5.4", "fragments without content", fragments(TEXT, b"", b"", b""), [echo(b"")]),
    ("5.4", "a character in two fragments", fragments(TEXT, HI[:-2], HI[-2:]), [echo(HI)]),
    ("5.4", "fragments of a binary", fragments(BINARY, b"\xff", b"\xff"), [echo(b"\xff\xff", True)]),
    ("5.5.2", "a ping is answered with its content", frame(PING, b"\x00\xff"), [pong(b"\x00\xff")]),
    ("5.5.2", "a ping of 125 bytes", frame(PING, b"p" * 125), [pong(b"p" * 125)]),
    ("5.5.3", "a pong that nobody asked for", frame(PONG, b"p"), []),
]  # fmt: skip

BREACHES: list[tuple[str, str, bytes, int]] = [
    ("5.1", "not masked", frame(TEXT, b"a", masked=False), 1002),
    ("5.1", "a ping that is not masked", frame(PING, b"", masked=False), 1002),
    *(("5.2", f"reserved bits {rsv:03b}", frame(TEXT, b"a", rsv=rsv), 1002) for rsv in range(1, 8)),
    ("5.2", "a reserved bit in a ping", frame(PING, b"", rsv=4), 1002),
    *(("5.2", f"reserved opcode {opcode}", frame(opcode, b"a"), 1002) for opcode in (*range(3, 8), *range(11, 16))),
    ("5.2", "a length of 64 bits with the first one set", b"\x82\xff\x80" + bytes(7) + b"mask", 1009),
    ("5.2", "a length of 64 bits that none can hold", b"\x82\xff\x7f" + b"\xff" * 7 + b"mask", 1009),
    ("5.4", "goes on with nothing", frame(CONT, b"a"), 1002),
    ("5.4", "goes on with nothing, and more", frame(CONT, b"a", fin=False), 1002),
    ("5.4", "goes on with what has ended", fragments(TEXT, b"a", b"b") + frame(CONT, b"c"), 1002),
    ("5.4", "a text within a text", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    ("5.4", "a binary within a text", frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002),
    ("5.5", "a fragment of a ping", frame(PING, b"a", fin=False), 1002),
    ("5.5", "a fragment of a close", frame(CLOSE, b"", fin=False), 1002),
    ("5.5", "a ping of 126 bytes", frame(PING, b"p" * 126), 1002),
    ("5.5", "a close of 126 bytes", frame(CLOSE, b"\x03\xe8" + b"r" * 124), 1002),
    ("5.5.1", "a close with half a code", frame(CLOSE, b"\x03"), 1002),
    ("5.5.1", "a close whose reason is no UTF-8", close(1000, BAD), 1007),
    *(("7.4", f"closed with {code}", close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
    ("8.1", "no UTF-8", frame(TEXT, BAD), 1007),
    ("8.1", "a text that ends within a character", frame(TEXT, HI[:-1]), 1007),
    ("8.1", "too long for what it says", frame(TEXT, b"\xc0\xaf"), 1007),
    ("8.1", "above U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    ("8.1", "no UTF-8 in the last fragment", fragments(TEXT, b"a", BAD), 1007),
    ("8.1", "a last fragment that ends within a character", fragments(TEXT, HI, HI[:-1]), 1007),
]  # fmt: skip

CLOSES: list[tuple[str, str, bytes, int]] = [
    ("5.5.1", "without a code", close(None), 0),
    ("7.4", "1000", close(1000), 1000),
    ("7.4", "with a reason of 123 bytes", close(1001, b"r" * 123), 1001),
    *(("7.4", f"{code}", close(code), code) for code in (1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999)),
    ("5.4", "within a fragmented message", frame(TEXT, b"a", fin=False) + close(1000), 1000),
    ("5.5.1", "what comes behind it is not read", close(1000) + frame(TEXT, BAD) + frame(PING), 1000),
]


def named(rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"{clause}: {what}" for clause, what, *_ in rows]


def pieces(data: bytes, bytewise: bool) -> list[bytes]:
    # A large one by itself byte by byte says no more than its head.
    return [data[n : n + 1] for n in range(200)] + [data[200:]] if bytewise else [data]


bytewise = pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("127.0.0.1", 0, stop, listening))
    yield await listening
    stop.set()
    await serving


@bytewise
@pytest.mark.parametrize(("clause", "what", "sent", "answers"), GOOD, ids=named(GOOD))
async def test_what_is_allowed_is_read(
    address: str, clause: str, what: str, sent: bytes, answers: list[tuple[Any, ...]], bytewise: bool
) -> None:
    seen = await play(address, pieces(sent, bytewise), done=lambda seen: seen.events == answers)
    assert (seen.events, seen.close, seen.faults) == (answers, 1000, [])


@bytewise
@pytest.mark.parametrize("tail", [b"", close(1000)], ids=["alone", "and a close"])
@pytest.mark.parametrize(("clause", "what", "sent", "code"), BREACHES, ids=named(BREACHES))
async def test_a_breach_fails_the_connection_with_its_code(
    address: str, clause: str, what: str, sent: bytes, code: int, bytewise: bool, tail: bytes
) -> None:
    seen = await play(address, pieces(sent + tail, bytewise))
    assert (seen.close, seen.faults) == (code, [])


@bytewise
@pytest.mark.parametrize(("clause", "what", "sent", "code"), CLOSES, ids=named(CLOSES))
async def test_a_close_is_answered_with_its_code(
    address: str, clause: str, what: str, sent: bytes, code: int, bytewise: bool
) -> None:
    seen = await play(address, pieces(sent, bytewise))
    assert (seen.events, seen.close, seen.faults) == ([], code, [])


@bytewise
@pytest.mark.parametrize("first", [BAD, b"\xff"])
async def test_the_fragment_that_is_no_utf_8_fails_at_once(address: str, first: bytes, bytewise: bool) -> None:
    """RFC 6455 8.1: not only when the message is whole; it never is here."""
    seen = await play(address, pieces(frame(TEXT, first, fin=False), bytewise))
    assert (seen.events, seen.close) == ([], 1007)


@pytest.mark.parametrize(
    "sent",
    [frame(TEXT, b" " * 65_537), fragments(TEXT, b" " * 40_000, b" " * 25_537), b"\x81\xff" + (2**62).to_bytes(8)],
    ids=["whole", "in fragments", "announced only"],
)
async def test_a_message_over_the_limit_is_closed_with_1009(sent: bytes) -> None:
    """RFC 6455 7.4.1; and 10.4: the limit is on the message, not on a frame."""
    async with serving() as served:
        seen = await play(f"127.0.0.1:{served.port}", [sent], "/ws")
        assert seen.close == 1009
        assert served.hub.closed == {"bad message": 1}
