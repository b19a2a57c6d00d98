"""A coverage-guided fuzzer for the parser: `python -m tests.fuzz.http1 -max_total_time=600 DIRECTORY`.

It needs atheris (`pip install taskd[fuzz]`) and takes libFuzzer's options; new inputs go to the first directory given.
It begins with `tests/fuzz/corpus/http1` and with what is in that and further directories. `test_corpus.py` gives that
corpus to `check`, without atheris.

Afterwards: `python -m tests.fuzz.http1 -merge=1 NEW DIRECTORY` writes the fewest files with the same coverage to NEW.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

from taskd.http1.limits import Limits
from tests.http1.others import alike, of_h11, of_taskd
from tests.http1.reading import Reading, Told, read

CORPUS = Path(__file__).resolve().parent / "corpus" / "http1"

LIMITS = Limits(head=200, fields=5, target=30, body=40, chunk_line=20, framing=60)
"""So small that short inputs reach them."""

LONGEST = 500
"""Bytes of an input; one by one they take most of the time."""


def check(data: bytes) -> None:
    """See that what always holds for the parser holds for `data`.

    Raises:
        Exception: whatever the parser raises, save `BadRequest`.
        AssertionError: the reading depends on how the bytes were cut, a bound is broken, or h11 disagrees.
    """
    data = data[:LONGEST]
    whole = read(data, limits=LIMITS)
    assert _one_by_one(data) == whole
    cut = zlib.crc32(data) % (len(data) + 1)
    assert read(data[:cut], data[cut:], limits=LIMITS) == whole
    _within_bounds(whole)
    _ends(whole, read(data, limits=LIMITS, eof=True))
    for raw, mine in of_taskd(data, LIMITS):
        theirs = of_h11(raw)
        assert theirs is not None, raw
        assert len(theirs) == 1, raw
        assert alike(mine, theirs[0]), (mine, theirs[0])


def _one_by_one(data: bytes) -> Told:
    reading = Reading(LIMITS)
    for place in range(len(data)):
        reading.feed(data[place : place + 1])
        # Nothing waits but an unfinished line or section.
        assert len(reading.parser._buffer) <= LIMITS.head
    return reading.told


def _within_bounds(told: Told) -> None:
    for request in told.requests:
        head = request.head
        assert len(head.raw) <= LIMITS.head
        assert len(head.headers) <= LIMITS.fields
        assert len(head.target) <= LIMITS.target
        assert len(request.body) <= LIMITS.body
        assert not (head.chunked and head.content_length is not None)
        assert not request.whole or head.chunked or len(request.body) == (head.content_length or 0)


def _ends(before: Told, after: Told) -> None:
    """The end of input finishes everything, and changes nothing that was said."""
    assert after.requests == before.requests
    assert after.closed is not (after.status is not None)
    if before.status is not None or before.closed:
        assert after == before
    elif not all(request.whole for request in before.requests):
        assert after.status == 400


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["taskd.http1"]):
        import importlib

        for name in [name for name in sys.modules if name.startswith(("taskd.http1", "tests.http1", "tests.fuzz"))]:
            if name != "tests.fuzz":
                del sys.modules[name]
        fresh = importlib.import_module("tests.fuzz.http1")
    # libFuzzer starts itself again to merge, by these words. With no directory before the corpus, new inputs go there.
    itself = f"{sys.executable} -m tests.fuzz.http1"
    atheris.Setup([itself, *sys.argv[1:], str(CORPUS)], fresh.check, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
