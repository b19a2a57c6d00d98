"""The gate, over tokens in memory and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from taskd.domain.access import Access
from taskd.domain.model import Role, User
from taskd.domain.token import Token, digest_of, new_token
from taskd.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.runtime.supervisor import Supervisor
from taskd.service import auth
from taskd.service.auth import BELIEVED, FAILURES_AT_ONCE, LOOK_EVERY, Caller, Gate, TooManyCalls, place_of
from tests.waiting import eventually


class Tokens:
    """The port `Tokens`, over a dict."""

    def __init__(self) -> None:
        self.known: dict[bytes, Token] = {}
        self.looks: list[list[bytes]] = []
        self.away = False
        self.go: asyncio.Event | None = None

    def add(self, user: str = "ann", role: Role = Role.USER) -> str:
        token = new_token()
        digest = digest_of(token)
        assert digest is not None
        self.known[digest] = Token(digest, user, role)
        return token

    def revoke(self, token: str) -> None:
        del self.known[digest_of(token) or b""]

    async def find(self, digests: Sequence[bytes]) -> Sequence[Token]:
        self.looks.append(list(digests))
        found = [self.known[digest] for digest in digests if digest in self.known]
        if self.go is not None:
            await self.go.wait()
        if self.away:
            raise Unavailable("away")
        return found


class World:
    def __init__(self, rate: float | None = None) -> None:
        self.now = 1000.0
        self.tokens = Tokens()
        self.catalog = Catalog()
        self.supervisor = Supervisor()
        self.gate = Gate(self.tokens, self.supervisor, rate=rate, catalog=self.catalog, clock=lambda: self.now)

    async def who(self, token: str | None, address: str = "192.0.2.1") -> User:
        return await self.gate.identify(Caller(token, address=address))

    def refused(self, reason: str) -> float:
        return self.catalog.auth_refused.labels(reason).value


@pytest.fixture
def world() -> World:
    return World()


async def test_a_token_names_its_user(world: World) -> None:
    token = world.tokens.add("Аня", Role.WORKER)
    user = await world.who(token)
    assert (user.name, user.role, user.trusted) == ("Аня", Role.WORKER, False)
    assert user.token == digest_of(token)
    assert user.authorization == f"Bearer {token}"
    assert token not in repr(user)
    assert token not in repr(Caller(token))


@pytest.mark.parametrize("token", ["", "tk_short", new_token(), "x" * 10_000])
async def test_what_names_nobody_is_refused(world: World, token: str) -> None:
    with pytest.raises(Unauthenticated, match="names nobody") as caught:
        await world.who(token)
    assert token == "" or token not in str(caught.value)
    assert world.refused("unknown") == 1


async def test_who_shows_nothing_is_told_how_to(world: World) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        await world.who(None)
    assert world.refused("missing") == 1
    assert world.tokens.looks == []


async def test_callers_are_taken_at_their_word_where_there_are_no_tokens() -> None:
    gate = Gate(None, Supervisor())
    assert await gate.identify(Caller(word="ann")) == User("ann", trusted=True)
    assert await gate.identify(Caller()) == User("anonymous", trusted=True)


async def test_a_token_is_looked_up_once_in_a_while(world: World) -> None:
    token = world.tokens.add()
    for _ in range(3):
        await world.who(token)
    assert len(world.tokens.looks) == 1
    world.now += BELIEVED - 0.01
    await world.who(token)
    assert len(world.tokens.looks) == 1
    world.tokens.revoke(token)
    world.now += 0.01
    with pytest.raises(Unauthenticated):
        await world.who(token)


async def test_it_is_believed_from_when_it_was_looked_up_not_from_when_the_answer_came(world: World) -> None:
    token = world.tokens.add()
    world.tokens.go = asyncio.Event()
    asking = asyncio.ensure_future(world.who(token))
    await eventually(lambda: len(world.tokens.looks) == 1)
    world.tokens.revoke(token)
    world.now += BELIEVED
    world.tokens.go.set()
    await asking
    with pytest.raises(Unauthenticated):
        await world.who(token)


async def test_many_callers_at_once_share_a_look(world: World) -> None:
    tokens = [world.tokens.add(f"user{number}") for number in range(FAILURES_AT_ONCE)]
    world.tokens.go = asyncio.Event()
    asking = [asyncio.ensure_future(world.who(token)) for token in tokens]
    await eventually(lambda: len(world.tokens.looks) == 1)
    world.tokens.go.set()
    names = [user.name for user in await asyncio.gather(*asking)]
    assert names == [f"user{number}" for number in range(FAILURES_AT_ONCE)]
    # Those that came before the first look ended share it, or the one behind it.
    assert len(world.tokens.looks) <= 2


async def test_in_an_outage_nobody_new_is_believed(world: World) -> None:
    token = world.tokens.add()
    await world.who(token)
    world.tokens.away = True
    await world.who(token)
    world.now += BELIEVED
    with pytest.raises(Unavailable):
        await world.who(token)
    world.tokens.away = False
    await world.who(token)


async def test_who_guesses_is_held_up_by_address_and_nobody_else_is(world: World) -> None:
    known, unseen = world.tokens.add(), world.tokens.add()
    await world.who(known)
    for _ in range(FAILURES_AT_ONCE):
        with pytest.raises(Unauthenticated):
            await world.who(new_token())
    looks = len(world.tokens.looks)
    with pytest.raises(RateLimited) as caught:
        await world.who(new_token())
    assert caught.value.retry_after == pytest.approx(1 / auth.FAILURES)
    assert (world.refused("address"), len(world.tokens.looks)) == (1, looks)
    # Whoever was good here before is looked at even so, and so is everybody elsewhere.
    world.now += BELIEVED
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await world.who("guess")
    with pytest.raises(RateLimited):
        await world.who(unseen)
    await world.who(known)
    await world.who(unseen, "192.0.2.2")


async def test_of_one_address_no_more_are_looked_up_at_once_than_may_name_nobody(world: World) -> None:
    world.tokens.go = asyncio.Event()
    guesses = [asyncio.ensure_future(world.who(new_token())) for _ in range(100)]
    await eventually(lambda: world.tokens.looks)
    world.tokens.go.set()
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(map(len, world.tokens.looks)) == FAILURES_AT_ONCE
    assert [type(answer) for answer in answers].count(Unauthenticated) == FAILURES_AT_ONCE
    assert [type(answer) for answer in answers].count(RateLimited) == 100 - FAILURES_AT_ONCE


async def test_a_token_that_was_good_once_is_guessed_like_any_other(world: World) -> None:
    token = world.tokens.add()
    await world.who(token)
    world.tokens.revoke(token)
    world.now += BELIEVED
    for _ in range(FAILURES_AT_ONCE):
        with pytest.raises(Unauthenticated):
            await world.who(token)
    with pytest.raises(RateLimited):
        await world.who(token)


async def test_many_good_ones_from_one_address_wait_for_each_other_and_all_come_in(world: World) -> None:
    tokens = [world.tokens.add(f"user{number}") for number in range(200)]
    users = await asyncio.gather(*(world.who(token) for token in tokens))
    assert [user.name for user in users] == [f"user{number}" for number in range(200)]
    assert max(map(len, world.tokens.looks)) <= FAILURES_AT_ONCE


async def test_one_who_gives_up_waiting_keeps_nobody_else_from_coming_in(world: World) -> None:
    world.tokens.go = asyncio.Event()
    asking = [asyncio.ensure_future(world.who(world.tokens.add())) for _ in range(60)]
    await eventually(lambda: world.tokens.looks)
    for one in asking[::2]:
        one.cancel()
    world.tokens.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(answer, User) for answer in answers] == [False, True] * 30


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_a_place_is_an_address_or_a_customers_network(address: str, place: str) -> None:
    assert place_of(address) == place


async def test_calls_are_for_roles(world: World) -> None:
    user = await world.who(world.tokens.add())
    world.gate.allow(user, Access.TASKS)
    with pytest.raises(Forbidden):
        world.gate.allow(user, Access.METRICS)
    assert world.refused("forbidden") == 1


async def test_each_token_has_a_rate_of_its_own_even_of_one_user() -> None:
    world = World(rate=2)
    one, other = [await world.who(world.tokens.add("ann")) for _ in range(2)]
    left = [world.gate.charge(one) for _ in range(2)]
    assert [allowance.remaining for allowance in left if allowance] == [1, 0]
    with pytest.raises(TooManyCalls) as caught:
        world.gate.allow(one, Access.TASKS)
    assert caught.value.allowance.limit == 2
    assert caught.value.retry_after == pytest.approx(0.5)
    assert world.refused("rate") == 1
    world.gate.allow(other, Access.TASKS)
    world.now += 0.5
    world.gate.allow(one, Access.TASKS)


async def test_admins_have_no_limit() -> None:
    world = World(rate=1)
    user = await world.who(world.tokens.add("root", Role.ADMIN))
    for _ in range(10):
        assert world.gate.charge(user) is None


async def test_calls_that_are_refused_for_their_role_count_too() -> None:
    world = World(rate=1)
    user = await world.who(world.tokens.add())
    with pytest.raises(Forbidden):
        world.gate.allow(user, Access.ADMIN)
    with pytest.raises(TooManyCalls):
        world.gate.allow(user, Access.ADMIN)


async def test_who_stays_is_told_when_the_token_is_gone(world: World) -> None:
    token, other = world.tokens.add(), world.tokens.add("bob")
    ended: list[str] = []
    for name, user in (("a", await world.who(token)), ("b", await world.who(token)), ("c", await world.who(other))):
        world.gate.hold(user, lambda name=name: ended.append(name))  # type: ignore[misc]
    assert await world.gate.run_once() == LOOK_EVERY
    assert ended == []
    world.now += LOOK_EVERY
    await world.who(token)
    world.tokens.revoke(token)
    await world.gate.run_once()
    assert sorted(ended) == ["a", "b"]
    # And at once: what was believed is not any more.
    with pytest.raises(Unauthenticated):
        await world.who(token)
    world.now += LOOK_EVERY
    await world.gate.run_once()
    assert sorted(ended) == ["a", "b"]
    assert world.tokens.looks[-1] == [digest_of(other)]


async def test_who_has_left_is_not_looked_at(world: World) -> None:
    user = await world.who(world.tokens.add())
    releases = [world.gate.hold(user, lambda: None) for _ in range(2)]
    for release in (*releases, *releases):
        release()
    looks = len(world.tokens.looks)
    assert await world.gate.run_once() is None
    assert len(world.tokens.looks) == looks


async def test_who_stays_and_was_looked_up_a_while_ago_is_looked_at_at_once(world: World) -> None:
    other = world.tokens.add("bob")
    world.gate.hold(await world.who(other), lambda: None)
    await world.gate.run_once()
    token = world.tokens.add()
    user = await world.who(token)
    world.tokens.revoke(token)
    ended: list[int] = []
    # Its stream took its time to open.
    world.now += BELIEVED
    looks = len(world.tokens.looks)
    world.gate.hold(user, lambda: ended.append(1))
    world.now -= 1
    await world.gate.run_once()
    assert ended == [1]
    assert world.tokens.looks[looks:] == [[digest_of(token)]]


async def test_no_fault_of_a_look_ends_the_process_or_a_stream(world: World) -> None:
    ended: list[int] = []
    world.gate.hold(await world.who(world.tokens.add()), lambda: ended.append(1))

    async def find(digests: Sequence[bytes]) -> Sequence[Token]:
        raise ZeroDivisionError

    world.tokens.find = find  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="ZeroDivisionError"):
        await world.gate.run_once()
    assert ended == []


async def test_an_outage_ends_no_stream(world: World) -> None:
    user = await world.who(world.tokens.add())
    ended: list[int] = []
    world.gate.hold(user, lambda: ended.append(1))
    world.tokens.away = True
    with pytest.raises(Unavailable):
        await world.gate.run_once()
    assert ended == []


async def test_the_duty_looks_once_somebody_stays(world: World) -> None:
    world.gate.start()
    user = await world.who(world.tokens.add())
    ended = asyncio.Event()
    world.tokens.known.clear()
    world.now += LOOK_EVERY
    world.gate.hold(user, ended.set)
    await asyncio.wait_for(ended.wait(), 20)
    await world.gate.stop()
    await world.gate.stop()


def test_a_revoked_token_is_good_for_less_than_five_seconds() -> None:
    # Believed by a request that opens a stream, then not yet looked at.
    assert BELIEVED + LOOK_EVERY < 5
