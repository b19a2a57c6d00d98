"""What a process has to tell a shared cache, in order: first what has ended, then what is to be kept.

Nothing that has ended is forgotten before the cache has confirmed it, however long it is away, so the outbox also
answers what nobody may ask the cache for until then. It is bounded: when too much has ended, everything has; and what
is to be kept is only ever an offer, dropped where there is no room.

    parcel = outbox.take()     send it, and then
    outbox.confirm()           it is done, or
    outbox.restore()           it may not be: what has ended is sent again, what was to be kept is dropped
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from taskd.cache.port import Key, Ticket

MOST_ENDED = 10_000
"""Scopes that wait; about 2 MB. With more of them, ending everything is cheaper than ending each."""

MOST_KEPT, MOST_KEPT_BYTES = 1_000, 16 * 1024 * 1024
"""Values that wait, and their bytes."""

PARCEL_ENDED, PARCEL_KEPT, PARCEL_BYTES = 1_000, 100, 1024 * 1024
"""What is sent at once: a few milliseconds' work for either side. The last value may go over the bytes."""


class Offer(NamedTuple):
    """A value to be kept."""

    key: Key
    ticket: Ticket
    payload: bytes


class Parcel(NamedTuple):
    """What is to be sent at once. `all_ended`: everything that is kept has ended."""

    all_ended: bool
    ended: tuple[str, ...]
    offers: tuple[Offer, ...]


class Outbox:
    """Collects what has ended and what is to be kept, until it is taken; one parcel is on its way at a time."""

    def __init__(self) -> None:
        self._all_waits = False
        self._all_sent = False
        # Ordered by arrival.
        self._waiting: dict[str, None] = {}
        self._sent: dict[str, None] = {}
        self._offers: dict[Key, Offer] = {}
        self._offered = 0

    def __bool__(self) -> bool:
        return bool(self._all_waits or self._waiting or self._offers)

    def holds(self, scope: str) -> bool:
        """Whether the scope has ended and the cache may not know it yet."""
        return self._all_waits or self._all_sent or scope in self._waiting or scope in self._sent

    def end(self, scopes: Iterable[str]) -> None:
        """Say that scopes have ended."""
        if self._all_waits:
            return
        # Also what is on its way just now: it may arrive before something that has to be ended by this.
        self._waiting.update(dict.fromkeys(scopes))
        if len(self._waiting) > MOST_ENDED:
            self.end_all()

    def end_all(self) -> None:
        """Say that everything has ended; what was offered before is void."""
        self._all_waits = True
        self._waiting.clear()
        self._offers.clear()
        self._offered = 0

    def offer(self, offer: Offer) -> bool:
        """Have a value kept, in place of one with the same key that was asked for earlier; return whether it waits."""
        # The ticket is from before the end that waits: nobody gets one while it does.
        if self.holds(offer.key.scope):
            return False
        old = self._offers.get(offer.key)
        if old is not None and old.ticket.at > offer.ticket.at:
            return False
        size = self._offered + len(offer.payload) - (len(old.payload) if old else 0)
        if (old is None and len(self._offers) >= MOST_KEPT) or size > MOST_KEPT_BYTES:
            return False
        self._offers[offer.key] = offer
        self._offered = size
        return True

    def take(self) -> Parcel:
        """Return what is to be sent next, perhaps nothing; it counts as on its way until confirmed or restored."""
        self._all_sent, self._all_waits = self._all_waits, False
        for scope in list(self._waiting)[:PARCEL_ENDED]:
            del self._waiting[scope]
            self._sent[scope] = None
        offers: list[Offer] = []
        size = 0
        # Values go when no end waits: one that its end is to overtake is not worth the way.
        while self._offers and not self._waiting and len(offers) < PARCEL_KEPT and size < PARCEL_BYTES:
            offer = self._offers.pop(next(iter(self._offers)))
            self._offered -= len(offer.payload)
            # One that has ended since it was offered would be worth nothing.
            if offer.key.scope not in self._sent:
                size += len(offer.payload)
                offers.append(offer)
        return Parcel(self._all_sent, tuple(self._sent), tuple(offers))

    def confirm(self) -> None:
        """Say that the parcel has arrived."""
        self._all_sent = False
        self._sent.clear()

    def restore(self) -> None:
        """Say that the parcel may not have arrived."""
        all_sent, sent = self._all_sent, tuple(self._sent)
        self.confirm()
        if all_sent:
            self.end_all()
        self.end(sent)
