"""What fuzzers have found worth keeping, given to the same checks again."""

from __future__ import annotations

import pytest

from tests.fuzz import http1

FILES = sorted(http1.CORPUS.iterdir())


@pytest.mark.parametrize("begin", range(8))
def test_the_corpus_of_the_parser(begin: int) -> None:
    for file in FILES[begin::8]:
        http1.check(file.read_bytes())


def test_the_corpora_stay_small() -> None:
    assert 0 < len(FILES) <= 300
    assert sum(file.stat().st_size for file in FILES) <= 300 * 1024
