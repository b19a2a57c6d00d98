"""Requests of other servers' suites, where they are at hand: refused where those refuse, else read alike."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from taskd.http1.limits import Limits
from tests.http1.reading import Told, at_a_glance, read

CORPORA = Path(os.environ.get("TASKD_CORPORA") or Path(__file__).resolve().parents[3] / "shared" / "corpora")
FILE = CORPORA / "http_requests.json"

NO_HOST = "a request of HTTP/1.1 has exactly one Host (RFC 9112 3.2); the second one here has none"
STRICTER = {
    "gunicorn-valid-005": "a fragment never belongs to a target (RFC 9110 7.1), and readers differ on what it does",
    "gunicorn-valid-018": NO_HOST,
    "gunicorn-valid-022": NO_HOST,
    "gunicorn-valid-023": NO_HOST,
    "gunicorn-valid-025_line": "the only transfer coding that is read is chunked: 501 (RFC 9112 6.1)",
    "gunicorn-valid-rfc9112_target_absolute_userinfo_01": "user information is an error (RFC 9110 4.2.4)",
    "llhttp-connection-Restarting when keep-alive is explicitly": NO_HOST,
    "llhttp-pipelining-Should parse multiple events": NO_HOST,
}
"""What others take and taskd refuses, on purpose."""

CASES = json.loads(FILE.read_text()) if FILE.exists() else []

pytestmark = pytest.mark.skipif(not CASES, reason=f"{FILE} is not there")


def said(raw: bytes) -> Told:
    """Return what is said to the bytes and then their end, which must not depend on how they were cut."""
    whole = read(raw, limits=Limits(), eof=True)
    assert read(*(raw[n : n + 1] for n in range(len(raw))), limits=Limits(), eof=True) == whole
    at_a_glance(raw, Limits())
    return whole


def cases(expect: str) -> list[object]:
    return [pytest.param(case, id=case["name"]) for case in CASES if case["expect"] == expect]


@pytest.mark.parametrize("case", cases("reject"))
def test_what_another_refuses_is_refused(case: dict[str, str]) -> None:
    raw = base64.b64decode(case["raw"])
    told = said(raw)
    assert told.status in (400, 408, 411, 413, 414, 417, 431, 501, 505), case["reason"]
    assert not told.closed
    # Whatever follows changes nothing. What is only unfinished is refused when its end comes or its time is over.
    if read(raw, limits=Limits()).status is not None:
        assert read(raw + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", limits=Limits()) == read(raw, limits=Limits())


@pytest.mark.parametrize("case", cases("accept"))
def test_what_another_takes_is_read_alike_or_refused_on_purpose(case: dict[str, str]) -> None:
    told = said(base64.b64decode(case["raw"]))
    if case["name"] in STRICTER:
        assert told.status is not None
        return
    assert told.status is None
    assert told.requests
    assert all(request.whole for request in told.requests)
    _is_read_alike(base64.b64decode(case["raw"]), told)


def _is_read_alike(raw: bytes, told: Told) -> None:
    """Compare with the bytes: a valid head has one reading only, which a few lines find."""
    rest = raw
    for request in told.requests:
        rest = rest.removeprefix(b"\r\n")
        head, _, rest = rest.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        assert line.split(b" ")[:2] == [request.head.method.encode(), request.head.target]
        pairs = [field.partition(b":") for field in lines]
        assert request.head.headers == tuple((name.lower(), value.strip(b" \t")) for name, _, value in pairs)
        if request.head.chunked:
            body, rest = _dechunked(rest)
        else:
            length = request.head.content_length or 0
            body, rest = rest[:length], rest[length:]
        assert request.body == body
    assert told.closed
    assert rest.strip() == b"" or not told.requests[-1].head.keep_alive


def _dechunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        body, data = body + data[:size], data[size + 2 :]
    while not data.startswith(b"\r\n"):
        data = data.partition(b"\r\n")[2]
    return body, data[2:]
