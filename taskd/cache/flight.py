"""Single flight: of those who want one key at one time, one loads it and the others wait for what he gets.

A flight is led by one of its callers, in his own task. If he is cancelled, the one who has waited longest leads on and
loads anew; the others notice nothing. An error of the load is the answer to all of them.

A flight that has landed is finished for those who are on it, and nobody else gets on: its load began before something
that whoever comes later must see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class _Loaded(NamedTuple, Generic[V]):
    value: V


class _Failed(NamedTuple):
    # Not set as the future's exception: a waiter who is cancelled in the same moment would leave it unretrieved.
    error: Exception


class _Lead(NamedTuple):
    """The leader went away: whoever gets this leads on."""


_Answer = _Loaded[V] | _Failed | _Lead


class _Flight(Generic[V]):
    """Those who wait for one load, in the order in which they came."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[_Answer[V]], None] = {}

    def tell(self, answer: _Loaded[V] | _Failed) -> None:
        """Answer all who wait."""
        for turn in self.waiting:
            if not turn.done():
                turn.set_result(answer)

    def hand_over(self) -> bool:
        """Make the one who has waited longest the leader; return whether there is one."""
        for turn in self.waiting:
            if not turn.done():
                turn.set_result(_Lead())
                return True
        return False


class Flights(Generic[V]):
    """The loads that are under way, by scope and key."""

    def __init__(self) -> None:
        self._scopes: dict[str, dict[Hashable, _Flight[V]]] = {}

    async def run(self, scope: str, key: Hashable, load: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """Return the value of a key, and whether another caller's load gave it.

        Args:
            scope: what ends it.
            key: what is wanted, and by whom, where that matters.
            load: gets it; awaited only if nobody else is loading it, or he who did was cancelled.

        Raises:
            Exception: what the load raised.
        """
        flights = self._scopes.get(scope)
        if flights is None:
            flights = self._scopes[scope] = {}
        flight = flights.get(key)
        if flight is None:
            flight = flights[key] = _Flight()
        else:
            answer = await self._wait(flight, scope, key)
            if isinstance(answer, _Loaded):
                return answer.value, True
            if isinstance(answer, _Failed):
                raise answer.error
        # Who comes here leads.
        try:
            value = await load()
        except Exception as error:
            self._end(flight, scope, key)
            flight.tell(_Failed(error))
            raise
        except BaseException:
            # Cancelled, which is the leader's own business.
            self._hand_over(flight, scope, key)
            raise
        self._end(flight, scope, key)
        if flight.waiting:
            flight.tell(_Loaded(value))
        return value, False

    def land(self, scopes: Iterable[str]) -> None:
        """Let nobody else get on the flights of these scopes: who comes now starts a new one."""
        for scope in scopes if self._scopes else ():
            self._scopes.pop(scope, None)

    def land_all(self) -> None:
        """Let nobody else get on any flight."""
        self._scopes.clear()

    async def _wait(self, flight: _Flight[V], scope: str, key: Hashable) -> _Answer[V]:
        turn: asyncio.Future[_Answer[V]] = asyncio.get_running_loop().create_future()
        flight.waiting[turn] = None
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and isinstance(turn.result(), _Lead):
                # Made the leader and cancelled in one moment.
                self._hand_over(flight, scope, key)
            raise
        finally:
            del flight.waiting[turn]

    def _hand_over(self, flight: _Flight[V], scope: str, key: Hashable) -> None:
        if not flight.hand_over():
            self._end(flight, scope, key)

    def _end(self, flight: _Flight[V], scope: str, key: Hashable) -> None:
        flights = self._scopes.get(scope)
        if flights is not None and flights.get(key) is flight:
            del flights[key]
            if not flights:
                del self._scopes[scope]
