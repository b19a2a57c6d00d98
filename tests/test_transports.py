"""Each transport has a table of its own from errors to statuses; where two speak HTTP, they say the same."""

from __future__ import annotations

from taskd import errors
from taskd.web import application, problem
from taskd.ws import handshake, hub


def test_no_error_is_missing_in_a_table() -> None:
    known = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.TaskdError)}
    assert set(problem.STATUS) == known
    assert set(handshake.STATUS) == known


def test_a_refused_handshake_has_the_status_that_a_call_would_have() -> None:
    assert dict(handshake.STATUS) == dict(problem.STATUS)


def test_both_transports_mean_the_same_path_by_the_socket() -> None:
    assert hub.SOCKET_PATH == application.SOCKET_PATH
