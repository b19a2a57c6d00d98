"""What every request passes through."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any

import pytest

from taskd import log
from taskd.errors import NotFound, StartError, Unavailable
from taskd.web.message import Answer, Request, Response, Sink, Stream
from taskd.web.middleware import PACKED_ENTRIES, link_next
from tests.web.site import Site, field, fine, made, route

LARGE = b'{"a":"' + b"x" * 2000 + b'"}'


async def large(request: Request) -> Answer:
    return Response(200, LARGE)


def facts_of(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = [record for record in caplog.records if record.name == "taskd.http" and record.levelno == logging.INFO]
    facts: dict[str, Any] = vars(record)["taskd"]
    return facts


@pytest.mark.parametrize("given", ["mine", "!", "~" * 128])
async def test_a_good_request_id_is_kept(given: str) -> None:
    answer = await Site(route(fine)).ask("GET", "/thing", X_Request_Id=given)
    assert field(answer, "X-Request-Id") == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "a\tb"])
async def test_a_bad_request_id_is_replaced(given: str) -> None:
    site = Site(route(fine))
    found = {field(await site.ask("GET", "/thing", X_Request_Id=given), "X-Request-Id") for _ in range(2)}
    assert len(found) == 2
    assert given not in found


async def test_a_problem_and_the_log_carry_the_request_id() -> None:
    seen = []

    async def handle(request: Request) -> Answer:
        seen.append(log.request_id.get())
        raise NotFound("not here")

    answer = await Site(route(handle)).ask("GET", "/thing", X_Request_Id="r1")
    assert (answer.status, json.loads(answer.body)["request_id"], seen) == (404, "r1", ["r1"])
    assert log.request_id.get() is None


async def test_each_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskd.http")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await Site(route(fine)).ask("GET", "/thing?user=ann", traceparent=trace)
    facts = facts_of(caplog)
    assert facts.pop("milliseconds") >= 0
    assert facts.pop("bytes") > 0
    assert facts == {"method": "GET", "status": 200, "route": "/thing", "user": "ann", "traceparent": trace}


@pytest.mark.parametrize("trace", ["", "00-0-0-0", "00-" + "G" * 32 + "-b7ad6b7169203331-01", "x" * 55])
async def test_a_bad_traceparent_is_not_logged(caplog: pytest.LogCaptureFixture, trace: str) -> None:
    caplog.set_level(logging.INFO, "taskd.http")
    await Site(route(fine)).ask("GET", "/nothing", traceparent=trace)
    facts = facts_of(caplog)
    assert facts["status"] == 404
    assert not {"traceparent", "route"} & set(facts)


@pytest.mark.parametrize("error", [RuntimeError("secret"), StartError("secret"), KeyError("secret")])
async def test_a_bug_is_500_and_shows_nothing_but_is_logged(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    async def handle(request: Request) -> Answer:
        raise error

    answer = await Site(route(handle)).ask("GET", "/thing")
    assert answer.status == 500
    assert b"secret" not in answer.body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    caplog.clear()


async def test_a_callers_fault_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(request: Request) -> Answer:
        raise Unavailable("the database is away", retry_after=3)

    answer = await Site(route(handle)).ask("GET", "/thing")
    assert (answer.status, field(answer, "Retry-After")) == (503, "3")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("asked", ["gzip", "br, gzip;q=0.5", "*", "GZIP", "identity;q=0.5, gzip"])
async def test_a_large_body_is_compressed_for_who_asks(asked: str) -> None:
    answer = await Site(route(large)).ask("GET", "/thing", Accept_Encoding=asked)
    assert gzip.decompress(answer.body) == LARGE
    assert (field(answer, "Content-Encoding"), field(answer, "Vary")) == ("gzip", "Accept-Encoding")


@pytest.mark.parametrize("asked", [None, "", "br", "gzip;q=0", "gzip;q=0.1, identity", "identity"])
async def test_it_is_not_for_who_does_not(asked: str | None) -> None:
    fields = {} if asked is None else {"Accept-Encoding": asked}
    answer = await Site(route(large)).ask("GET", "/thing", **fields)
    assert (answer.body, field(answer, "Content-Encoding")) == (LARGE, None)
    assert field(answer, "Vary") == "Accept-Encoding"


@pytest.mark.parametrize(("size", "packed"), [(1024, False), (1025, True), (100_000, True)])
async def test_only_bodies_above_a_kibibyte_are_compressed(size: int, packed: bool) -> None:
    async def handle(request: Request) -> Answer:
        return Response(200, b" " * size)

    answer = await Site(route(handle)).ask("GET", "/thing", Accept_Encoding="gzip")
    assert (field(answer, "Content-Encoding") == "gzip") is packed
    assert not packed or gzip.decompress(answer.body) == b" " * size


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is compressed, each time that it is."""
    seen: list[bytes] = []
    compress = gzip.compress

    def watched(data: bytes, level: int, *, mtime: float) -> bytes:
        seen.append(data)
        return compress(data, level, mtime=mtime)

    monkeypatch.setattr(gzip, "compress", watched)
    return seen


@pytest.mark.parametrize(("tags", "times"), [([("ETag", '"1"')], 1), ([], 2)], ids=["tagged", "untagged"])
async def test_what_has_a_tag_is_compressed_once(tags: list[tuple[str, str]], times: int, packed: list[bytes]) -> None:
    async def handle(request: Request) -> Answer:
        return Response(200, request.head.get(b"x-body") or LARGE, headers=tags)

    site = Site(route(handle))
    for _ in range(2):
        answer = await site.ask("GET", "/thing", Accept_Encoding="gzip")
        assert gzip.decompress(answer.body) == LARGE
    assert len(packed) == times
    other = await site.ask("GET", "/thing", Accept_Encoding="gzip", X_Body="b" * 5000)
    assert gzip.decompress(other.body) == b"b" * 5000


async def test_answers_to_changes_push_out_nothing_that_is_kept_compressed(packed: list[bytes]) -> None:
    async def read(request: Request) -> Answer:
        return Response(200, LARGE, headers=[("ETag", '"1"')])

    async def change(request: Request) -> Answer:
        return Response(201, request.body, headers=[("ETag", '"1"')])

    site = Site(route(read), route(change, "POST", body="NewTask"))
    await site.ask("GET", "/thing", Accept_Encoding="gzip")
    for number in range(PACKED_ENTRIES + 1):
        body = b'{"n": %d}' % number + b" " * 2000
        await site.ask("POST", "/thing", body, Accept_Encoding="gzip", Content_Type="application/json")
    await site.ask("GET", "/thing", Accept_Encoding="gzip")
    assert packed.count(LARGE) == 1


async def test_a_304_varies_as_its_200_does() -> None:
    async def handle(request: Request) -> Answer:
        return Response(304, headers=[("ETag", '"1"')])

    assert field(await Site(route(handle)).ask("GET", "/thing"), "Vary") == "Accept-Encoding"


async def test_a_stream_passes_through_all_of_it() -> None:
    async def run(sink: Sink) -> None: ...

    async def handle(request: Request) -> Answer:
        return Stream(run, "text/event-stream")

    answer = await Site(route(handle), origins=["https://a.test"]).handle(
        made("GET", "/thing", Origin="https://a.test", Accept_Encoding="gzip")
    )
    assert isinstance(answer, Stream)
    names = {name for name, _ in answer.headers}
    assert {"X-Request-Id", "X-Content-Type-Options", "Access-Control-Allow-Origin"} <= names


async def test_a_page_of_a_configured_origin_may_call() -> None:
    site = Site(route(fine), origins=["https://a.test"])
    answer = await site.ask("GET", "/thing", Origin="https://a.test")
    assert field(answer, "Access-Control-Allow-Origin") == "https://a.test"
    assert "ETag" in (field(answer, "Access-Control-Expose-Headers") or "")
    assert field(answer, "Vary") == "Origin"
    # Errors too, or the page can't read them.
    assert field(await site.ask("GET", "/none", Origin="https://a.test"), "Access-Control-Allow-Origin")


async def test_a_preflight_is_answered_before_anything_is_checked() -> None:
    site = Site(route(fine), origins=["https://a.test"])
    asked = {"Origin": "https://a.test", "Access-Control-Request-Method": "PATCH"}
    answer = await site.ask("OPTIONS", "/thing", **asked)
    assert answer.status == 204
    assert "PATCH" in (field(answer, "Access-Control-Allow-Methods") or "")
    assert "If-Match" in (field(answer, "Access-Control-Allow-Headers") or "")


@pytest.mark.parametrize("origin", [None, "https://b.test", "null", "https://a.test.evil"])
async def test_a_page_of_another_origin_is_given_no_leave(origin: str | None) -> None:
    site = Site(route(fine), origins=["https://a.test"])
    fields = {"Access-Control-Request-Method": "GET"} | ({} if origin is None else {"Origin": origin})
    for method in ("GET", "OPTIONS"):
        answer = await site.ask(method, "/thing", **fields)
        assert field(answer, "Access-Control-Allow-Origin") is None
        assert field(answer, "Vary") == "Origin"
    assert field(await Site(route(fine)).ask("GET", "/thing", Origin="https://a.test"), "Vary") is None


@pytest.mark.parametrize(
    ("target", "fields", "user"),
    [
        ("/thing", {}, "anonymous"),
        ("/thing?user=ann", {}, "ann"),
        ("/thing", {"X-Taskd-User": "bob"}, "bob"),
        ("/thing?user=ann", {"X-Taskd-User": "bob"}, "bob"),
        ("/thing?user=%D0%B0%D0%BD%D1%8F", {}, "аня"),
    ],
)
async def test_who_calls_is_who_they_say(target: str, fields: dict[str, str], user: str) -> None:
    answer = await Site(route(fine)).ask("GET", target, **fields)
    assert json.loads(answer.body)["user"] == user


@pytest.mark.parametrize(
    ("target", "fields", "named"),
    [
        ("/thing?user=", {}, "user"),
        ("/thing?user=a&user=b", {}, "user"),
        ("/thing?user=%FF", {}, "user"),
        ("/thing?user=%00", {}, "user"),
        (f"/thing?user={'a' * 201}", {}, "user"),
        ("/thing", {"X-Taskd-User": ""}, "X-Taskd-User"),
    ],
)
async def test_a_name_that_none_can_have_is_refused(target: str, fields: dict[str, str], named: str) -> None:
    answer = await Site(route(fine)).ask("GET", target, **fields)
    assert (answer.status, json.loads(answer.body)["errors"][0]["field"]) == (422, named)


async def test_browsers_are_told_not_to_guess() -> None:
    site = Site(route(fine))
    for path in ("/thing", "/none"):
        assert field(await site.ask("GET", path), "X-Content-Type-Options") == "nosniff"


def test_the_link_to_the_next_page_keeps_the_query() -> None:
    found = link_next("/tasks", [("status", "new"), ("cursor", "old"), ("kind", "a&b")], "next")
    assert found == ("Link", '</tasks?status=new&kind=a%26b&cursor=next>; rel="next"')
