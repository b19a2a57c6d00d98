"""Two other parsers as second opinions: what h11 or llhttp refuses is refused here, and what all take is read alike.

Hypothesis changes the rows of the table. Each request that this parser then reads is given to the others by itself, and
all of them together. Taking less than they do is fine; where it reads otherwise, `excused` says why.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskd.http1.limits import Limits
from tests.http1.others import Opinion, alike, of_h11, of_httptools, of_taskd
from tests.http1.rows.row import CHUNKED, GET
from tests.http1.test_rows import THEMES

LIMITS = Limits()

GOOD = [row.raw for theme in THEMES for row in theme.ROWS if row.status is None and len(row.raw) <= 200]
BAD = [row.raw for theme in THEMES for row in theme.ROWS if row.status is not None and len(row.raw) <= 200]
LIKELY = [
    GET + b"\r\n",
    b"POST /tasks?x=1 HTTP/1.1\r\nHost: example.org:80\r\nContent-Length: 5\r\nA: b\r\n\r\nhello",
    b"GET http://a:80/?b HTTP/1.1\r\nhost: a:80\r\nAccept: c\r\nAccept: d\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b'1;x="y"\r\na\r\n0\r\nT: u\r\n\r\n',
    b"PATCH /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    GET + b"Connection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n",
]
PARTS = [
    b"\r", b"\n", b"\r\n", b"\n\n", b" ", b"\t", b"\0", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80", b"\xa0", b"\xff",
    b"0", b"1",
    b"9", b"a", b"f", b"g", b"_", b"-", b"+", b"=", b"/", b"?", b"#", b"%", b"%4", b"@", b"[", b"]", b"\\", b'"',
    b"<", b"|",
    b":", b",", b";", b";a", b";a=b", b"*", b"http://", b"http://a", b"0x", b"00", b"1\r\nx\r\n", b"0\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1", b"HTTP/1.0", b"chunked", b"identity", b"close", b"Host: b\r\n", b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n", b"A: b\r\n", b" b: c\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip

CHANGES = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "repeat"]),
    st.integers(0, 400),
    st.sampled_from(PARTS) | st.binary(min_size=1, max_size=2),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw one to three requests in a row, with up to three changes."""
    one = st.sampled_from(LIKELY) | st.sampled_from(GOOD) | st.sampled_from(BAD)
    data = bytearray(b"".join(draw(st.lists(one, min_size=1, max_size=3))))
    for how, where, part in draw(st.lists(CHANGES, max_size=3)):
        place = where % (len(data) + 1)
        if how == "insert":
            data[place:place] = part
        elif how == "replace":
            data[place : place + len(part)] = part
        elif how == "delete":
            del data[place : place + len(part)]
        else:
            data[place:place] = data[place : place + 20]
    return bytes(data)


def differences(data: bytes) -> list[str]:
    """Return what another parser says otherwise about the requests that are read in `data`."""
    read = of_taskd(data, LIMITS)
    found = []
    others: list[tuple[str, Callable[[bytes], list[Opinion] | None]]] = [("h11", of_h11), ("llhttp", of_httptools)]
    for name, ask in others:
        taken = b""
        mine = []
        for raw, opinion in read:
            theirs = ask(raw)
            if excused(name, opinion):
                break
            if theirs is None or len(theirs) != 1 or not alike(opinion, theirs[0]):
                found.append(f"{name}: {opinion} of {raw!r} is to it {theirs}")
            taken += raw
            mine.append(opinion)
            # Both stop at an upgrade, for whoever speaks the other protocol; and h11 keeps no connection of HTTP/1.0.
            if upgrades(opinion) or (name == "h11" and opinion.version == "1.0"):
                break
        all_theirs = ask(taken) or []
        if not found and not (
            len(mine) == len(all_theirs) and all(alike(*both) for both in zip(mine, all_theirs, strict=True))
        ):
            found.append(f"{name}: {mine} of {taken!r} are to it {all_theirs}")
    return found


def upgrades(request: Opinion) -> bool:
    return any(name == b"upgrade" for name, _ in request.headers)


def excused(name: str, request: Opinion) -> bool:
    """Return whether a difference is known and right.

    An empty line in front of a request is ignored here (RFC 9112 2.2), which h11 refuses; `of_taskd` leaves it out.
    """
    # RFC 9110 7.8: a request for an upgrade may have a body, and is complete before the protocol changes. llhttp leaves
    # the body to whoever takes over. Refusing such a request would turn clients away that offer h2c with a POST.
    return name == "llhttp" and upgrades(request) and bool(request.body)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_what_another_refuses_is_refused_here_and_the_rest_is_read_alike(data: bytes) -> None:
    assert differences(data) == []


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.__name__.rpartition(".")[2])
def test_others_agree_on_the_table(theme: object) -> None:
    rows = theme.ROWS  # type: ignore[attr-defined]
    assert [found for row in rows for found in differences(row.raw)] == []


def test_enough_of_what_is_changed_is_still_read() -> None:
    assert sum(len(of_taskd(raw, LIMITS)) for raw in LIKELY) == len(LIKELY)
    assert not [raw for raw in LIKELY if differences(raw)]
