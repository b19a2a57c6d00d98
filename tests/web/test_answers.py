"""How pieces of an answer are given to a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from taskd.web.answers import write_pieces


class Asyncios(asyncio.Transport):
    """One of asyncio's, whose `writelines` of some versions tells nobody that a client takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        raise AssertionError("not told of what waits")


class Anothers:
    """One that is no `asyncio.Transport`, as uvloop's."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written.extend(pieces)


def test_asyncios_own_transport_gets_one_piece() -> None:
    transport = Asyncios()
    write_pieces(transport, (b"ab", b"c"))
    assert transport.written == [b"abc"]


def test_another_gets_them_as_they_are() -> None:
    transport: Any = Anothers()
    write_pieces(transport, (b"ab", b"c"))
    assert transport.written == [b"ab", b"c"]
