"""The garbage collector is as it was before."""

from __future__ import annotations

import gc

import pytest

from taskd.runtime.loading import no_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_collection_rests_and_is_as_before(was_on: bool) -> None:
    try:
        if not was_on:
            gc.disable()
        with no_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
