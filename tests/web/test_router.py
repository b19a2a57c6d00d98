"""Paths, methods, and what is checked before a handler is asked."""

from __future__ import annotations

import json

import pytest

from taskd.domain.fields import Integer
from taskd.domain.forms import Entry, Form
from taskd.web.message import Answer, Request, Response
from taskd.web.router import Router
from tests.web.site import Site, field, fine, route

ID = "0198c0c0-0000-7000-8000-000000000000"
QUERY = Form({"n": Entry(Integer(0, 9), "a digit", None)})


async def body_back(request: Request) -> Answer:
    return Response(200, json.dumps(request.json()).encode())


async def query_back(request: Request) -> Answer:
    return Response(200, json.dumps(request.args).encode())


SITE = Site(
    route(fine),
    route(body_back, "POST", body="Thing"),
    route(fine, path="/things/{id}"),
    route(fine, "DELETE", path="/things/{id}"),
    route(fine, path="/things/best"),
    route(fine, path="/things/{id}/parts"),
    route(query_back, path="/numbers", query=QUERY),
    route(fine, "POST", path="/things/{id}/poke"),
    route(fine, path="/stream", produces=("text/event-stream",)),
)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/thing", "/thing"),
        (f"/things/{ID}", "/things/{id}"),
        ("/things/best", "/things/best"),
        (f"/things/{ID}/parts", "/things/{id}/parts"),
        (f"http://test/things/{ID}", "/things/{id}"),
        ("/%74hing", "/thing"),
    ],
)
async def test_a_path_finds_its_route(path: str, template: str) -> None:
    answer = await SITE.ask("GET", path)
    assert (answer.status, json.loads(answer.body)["route"]) == (200, template)


@pytest.mark.parametrize(
    "path",
    ["/", "/thing/", "//thing", "/Thing", "/things", "/things/", f"/things/{ID}/", f"/things/{ID}/x", "/thing%2F"],
)
async def test_there_is_nothing_elsewhere(path: str) -> None:
    answer = await SITE.ask("GET", path)
    assert (answer.status, json.loads(answer.body)["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/thing", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/thing", "GET, HEAD, OPTIONS, POST"),
        ("TRACE", "/thing", "GET, HEAD, OPTIONS, POST"),
        ("POST", f"/things/{ID}", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", f"/things/{ID}/poke", "OPTIONS, POST"),
        ("HEAD", f"/things/{ID}/poke", "OPTIONS, POST"),
    ],
)
async def test_another_method_is_told_which_are_allowed(method: str, path: str, allow: str) -> None:
    answer = await SITE.ask(method, path)
    assert (answer.status, field(answer, "Allow")) == (405, allow)
    assert (await SITE.ask("OPTIONS", path)).headers[0] == ("Allow", allow)


async def test_options_ask_about_one_path_or_the_server() -> None:
    for target in ("/thing", "*"):
        answer = await SITE.ask("OPTIONS", target)
        assert (answer.status, answer.body) == (204, b"")
        assert "GET" in (field(answer, "Allow") or "")
    assert (await SITE.ask("OPTIONS", "/nothing")).status == 404


async def test_head_is_answered_wherever_get_is() -> None:
    assert (await SITE.ask("HEAD", "/thing")).status == 200


@pytest.mark.parametrize("text", ["x", ID[:-1], ID + "0", ID.replace("-", ""), "%00", "%FF"])
async def test_a_bad_id_is_named(text: str) -> None:
    answer = await SITE.ask("GET", f"/things/{text}")
    assert answer.status == 422
    assert [fault["field"] for fault in json.loads(answer.body)["errors"]] == ["id"]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("n=10", ["n"]),
        ("n=1&n=2", ["n"]),
        ("m=1", ["m"]),
        ("n=x&m=1&%00=2", ["n", "m", "\\0"]),
        ("N=1", ["N"]),
        ("n", ["n"]),
    ],
)
async def test_every_bad_parameter_is_named(query: str, fields: list[str]) -> None:
    answer = await SITE.ask("GET", f"/numbers?{query}")
    assert answer.status == 422
    assert [fault["field"] for fault in json.loads(answer.body)["errors"]] == fields


async def test_good_parameters_reach_the_handler_and_user_is_none() -> None:
    assert json.loads((await SITE.ask("GET", "/numbers?n=7&user=ann")).body) == {"n": 7}


@pytest.mark.parametrize("query", ["x=1", "%FF=%FF", "user=ann&x="])
async def test_a_call_without_parameters_takes_none(query: str) -> None:
    assert (await SITE.ask("GET", f"/thing?{query}")).status == 422


async def test_a_call_without_a_body_takes_none() -> None:
    path = f"/things/{ID}/poke"
    assert (await SITE.ask("POST", path)).status == 200
    assert (await SITE.ask("POST", path, b"{}")).status == 200
    answer = await SITE.ask("POST", path, b'{"reason": "typo"}')
    assert (answer.status, json.loads(answer.body)["errors"][0]["field"]) == (422, "body")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("application/*", 200),
        ("text/html, application/json;q=0.1", 200),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
    ],
)
async def test_what_is_not_acceptable_is_refused(accept: str, status: int) -> None:
    assert (await SITE.ask("GET", "/thing", Accept=accept)).status == status


async def test_a_stream_is_acceptable_as_a_stream_only() -> None:
    assert (await SITE.ask("GET", "/stream", Accept="text/event-stream")).status == 200
    assert (await SITE.ask("GET", "/stream", Accept="application/json")).status == 406


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "Application/JSON; charset=UTF-8"}, 200),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/merge-patch+json"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({}, 415),
    ],
)
async def test_only_json_is_read(fields: dict[str, str], status: int) -> None:
    assert (await SITE.ask("POST", "/thing", b'{"a": 1}', **fields)).status == status


async def test_the_length_of_a_body_must_be_announced() -> None:
    answer = await SITE.ask("POST", "/thing", Content_Type="application/json")
    assert (answer.status, json.loads(answer.body)["type"]) == (411, "/problems/length-required")
    assert (await SITE.ask("POST", "/thing", b"", Content_Type="application/json")).status == 400


def test_one_call_has_one_route() -> None:
    with pytest.raises(ValueError, match="routed twice"):
        Router([route(fine), route(fine)])


def test_a_method_that_metrics_would_not_tell_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody expects"):
        Router([route(fine, "PUT")])


async def test_a_call_may_look_at_accept_itself() -> None:
    site = Site(route(fine, own_accept=True))
    assert (await site.ask("GET", "/thing", Accept="image/png")).status == 200


async def test_a_call_may_have_several_answers() -> None:
    site = Site(route(fine, produces=("text/plain", "application/json")))
    for accept, status in (("text/plain", 200), ("application/json", 200), ("image/png", 406)):
        answer = await site.ask("GET", "/thing", Accept=accept)
        assert answer.status == status
    assert json.loads(answer.body)["detail"] == "this call answers with text/plain or application/json"
