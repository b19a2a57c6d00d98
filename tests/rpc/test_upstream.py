"""The service of a taskd elsewhere: what is sent to it, what is made of its answers, and what an outage looks like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd import log
from taskd.domain.cursor import decode_log_cursor
from taskd.domain.event import EventKey
from taskd.domain.forms import TaskPatch, parse_list_query, parse_new_task, parse_patch
from taskd.domain.model import ListQuery, NewTask, Role, Status, User
from taskd.errors import Fault, Invalid, NotFound, Unavailable
from taskd.rpc.channel import _OPTIONS, open_channel
from taskd.rpc.identity import USER, USER_BYTES, caller_of
from taskd.rpc.messages import new_task_body, new_task_message, patch_body, patch_message, task_message
from taskd.rpc.tasks import _list_pairs
from taskd.rpc.upstream import RemoteTasks, in_words_of_rest, list_message, metadata_of
from taskd.v1 import taskd_pb2 as pb
from tests.client.proxy import proxied
from tests.gates import trusting
from tests.rpc.peer import Peer, serving
from tests.waiting import eventually
from tests.ws.serving import make_task

ANN = User("ann")
ONE = UUID(int=1)
FOUND = pb.GetTaskResponse(task=task_message(make_task()))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving() as found:
        yield found


@pytest.fixture
async def remote(peer: Peer) -> AsyncIterator[RemoteTasks]:
    channel = open_channel(peer.address)
    yield RemoteTasks(channel)
    await channel.close()


@pytest.mark.parametrize("name", ["ann", "a b", "Аня", " ann", "ann ", "a\u2028b", "ü", "a\x7f"])
def test_the_name_arrives_as_it_is(name: str) -> None:
    sent = dict(metadata_of(User(name)))
    assert caller_of(sent, "", trusting()).word == name
    # Other values must be ASCII without spaces around it (gRPC over HTTP/2).
    assert sent.keys() == ({USER} if name in ("ann", "a b") else {USER_BYTES})


async def test_a_call_goes_out_as_its_own_caller_for_its_request(peer: Peer, remote: RemoteTasks) -> None:
    peer.answers["GetTask"] = FOUND
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    log.request_id.set("r-1")
    log.traceparent.set(trace)
    user = User("ann", authorization="Bearer tk_secret")
    assert (await remote.get(user, ONE)).id == ONE
    ((_, request, metadata),) = peer.calls
    assert request.id == str(ONE)
    assert metadata.items() >= {
        USER: "ann", "authorization": "Bearer tk_secret", "x-request-id": "r-1", "traceparent": trace
    }.items()  # fmt: skip
    assert "secret" not in repr(user)


async def test_what_is_read_never_comes_from_another_processs_cache(peer: Peer, remote: RemoteTasks) -> None:
    peer.answers |= {"GetTask": FOUND, "ListTasks": pb.ListTasksResponse()}
    await remote.get(ANN, ONE)
    await remote.list(ANN, ListQuery("ann"))
    assert [name for name, _, _ in peer.calls] == ["GetTask", "ListTasks"]
    for _, request, _ in peer.calls:
        assert decode_log_cursor(request.not_before).key > EventKey(1 << 62, 1 << 62)


@pytest.mark.parametrize(("if_match", "sent"), [(None, []), (frozenset(), [0]), (frozenset({3, 4}), [3, 4])])
async def test_a_precondition_that_nothing_meets_is_no_missing_one(
    peer: Peer, remote: RemoteTasks, if_match: frozenset[int] | None, sent: list[int]
) -> None:
    peer.answers |= {
        "UpdateTask": pb.UpdateTaskResponse(task=FOUND.task), "DeleteTask": pb.DeleteTaskResponse(task=FOUND.task)
    }  # fmt: skip
    await remote.update(ANN, ONE, TaskPatch({"title": "t"}), if_match)
    await remote.delete(ANN, ONE, if_match)
    assert [sorted(request.if_versions) for _, request, _ in peer.calls] == [sent, sent]


async def test_an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer_wanted_then(peer: Peer) -> None:
    channel = open_channel(peer.address)
    with pytest.raises(Unavailable) as caught:
        await RemoteTasks(channel, seconds=0.05).get(ANN, ONE)
    assert caught.value.retry_after > 0
    # However late the server is told of the deadline: it does not work for nobody.
    await eventually(lambda: not peer.calls or peer.cancelled == ["GetTask"])
    await channel.close()


async def test_who_goes_away_has_his_call_cancelled(peer: Peer, remote: RemoteTasks) -> None:
    asking = asyncio.create_task(remote.get(ANN, ONE))
    await eventually(lambda: peer.calls)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: peer.cancelled == ["GetTask"])


async def test_nobody_there_is_an_outage_and_tells_clients_no_addresses() -> None:
    channel = open_channel("127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^the upstream does not answer$") as caught:
            await RemoteTasks(channel).get(ANN, ONE)
        assert caught.value.retry_after > 0
        assert "127.0.0.1" in caught.value.__cause__.details()  # type: ignore[union-attr]
    await channel.close()


async def test_a_server_that_vanishes_without_a_word_is_noticed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is asked sooner than it would be; what its answer may take is as it is.
    monkeypatch.setitem(_OPTIONS, "grpc.keepalive_time_ms", 1000)
    peer.answers["GetTask"] = FOUND
    async with proxied(peer.address) as proxy:
        channel = open_channel(proxy.address)
        remote = RemoteTasks(channel, seconds=0.5)

        async def answered() -> bool:
            try:
                return bool(await remote.get(ANN, ONE))
            except Unavailable:
                return False

        await eventually(answered)
        proxy.freeze()
        assert not await answered()
        await eventually(answered)
        assert proxy.accepted == 2
        await channel.close()


async def test_only_what_changes_nothing_is_tried_again(peer: Peer, remote: RemoteTasks) -> None:
    peer.answers |= dict.fromkeys(("GetTask", "CreateTask"), grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable):
        await remote.get(ANN, ONE)
    with pytest.raises(Unavailable):
        await remote.create(ANN, NewTask(title="t"))
    assert [name for name, _, _ in peer.calls] == ["GetTask"] * 3 + ["CreateTask"]


async def test_a_status_of_somebody_else_is_taken_by_its_code(peer: Peer, remote: RemoteTasks) -> None:
    peer.answers["GetTask"] = grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFound, match="as the test asked"):
        await remote.get(ANN, ONE)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("task.title", "title"), ("patch.payload", "payload"), ("statuses", "status"), ("limit", "limit"),
        ("tasks[3].kind", "tasks[3].kind"), ("idempotency_key", "Idempotency-Key"), ("task", "task"),
    ],
)  # fmt: skip
def test_fields_are_named_as_rest_names_them(there: str, here: str) -> None:
    error = in_words_of_rest(Invalid([Fault(there, "m")]))
    assert isinstance(error, Invalid)
    assert error.faults == (Fault(here, "m"),)


text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**18) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
# The first moment and the last one are refused.
moments = st.datetimes(datetime(1, 1, 1, 1), datetime(9999, 12, 31)).map(lambda at: at.isoformat() + "Z")
fields: dict[str, st.SearchStrategy[Any]] = {
    "description": st.just("") | text,
    "payload": st.dictionaries(text, json, max_size=4),
    "priority": st.integers(-100, 100),
    "run_at": moments,
    "max_attempts": st.integers(1, 100),
    "timeout_seconds": st.integers(1, 1000) | st.floats(0.001, 1e6),
}
new_tasks = st.fixed_dictionaries({"title": text}, optional=fields | {"kind": st.just("a.kind-1")})
patches = st.fixed_dictionaries(
    {}, optional={name: st.none() | values for name, values in fields.items()} | {"title": text}
).filter(bool)


@given(new_tasks)
def test_a_new_task_arrives_as_it_was_given(body: dict[str, Any]) -> None:
    draft = parse_new_task(body)
    sent = pb.NewTask.FromString(new_task_message(draft).SerializeToString())
    assert parse_new_task(new_task_body(sent)) == draft


@given(patches)
def test_a_patch_arrives_as_it_was_given(body: dict[str, Any]) -> None:
    patch = parse_patch(body)
    sent = pb.TaskPatch.FromString(patch_message(patch).SerializeToString())
    assert parse_patch(patch_body(sent, list(patch.fields))) == patch


def _in_order(query: ListQuery) -> bool:
    assert query.created_after is not None
    assert query.created_before is not None
    return query.created_after < query.created_before


@given(
    st.builds(
        ListQuery,
        owner=st.sampled_from(["ann", "ben", None]),
        statuses=st.sets(st.sampled_from(Status)).map(lambda some: tuple(sorted(some))),
        kind=st.none() | st.just("a.kind-1"),
        created_after=st.none() | st.datetimes(timezones=st.just(UTC)),
        created_before=st.none() | st.datetimes(timezones=st.just(UTC)),
        limit=st.integers(1, 200),
        newest_first=st.booleans(),
        cursor=st.none() | st.just("abc"),
    ).filter(lambda query: None in (query.created_after, query.created_before) or _in_order(query))
)
def test_a_query_arrives_as_it_was_given(query: ListQuery) -> None:
    admin = User("root", Role.ADMIN)
    sent = pb.ListTasksRequest.FromString(list_message(admin, query).SerializeToString())
    assert parse_list_query(admin, _list_pairs(sent)) == query
