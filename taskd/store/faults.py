"""What asyncpg raises, as taskd's own errors: by class and SQLSTATE, never by the words of a message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from taskd.errors import Fault, Invalid, TaskdError, Unavailable

logger = logging.getLogger("taskd.store")

UNAVAILABLE_CLASSES = frozenset(
    {
        "08",  # connection exception
        "53",  # insufficient resources: too many connections, disk full, out of memory
        "57",  # operator intervention: shutdown, crash, starting up, statement timeout, database dropped
        "58",  # system error of the server
        "28",  # the account is refused
        "3D",  # there is no such database
    }
)
"""First two characters of SQLSTATEs (PostgreSQL manual, appendix A) after which a later try may go well."""

UNAVAILABLE_STATES = frozenset(
    {
        "25006",  # read-only transaction: a standby, in a switch-over
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # lock not available
    }
)

BAD_VALUE_CLASSES = frozenset({"22"})
"""Data exceptions: a value got here that no column takes; the checks before should have named its field."""


def translate(error: BaseException) -> TaskdError | None:
    """Return the error of taskd that stands for one of asyncpg's or the network's, or None: then it is a bug."""
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg could not encode an argument: its class for that is not exported, but is a ValueError too.
        unfit = isinstance(error, ValueError) and not isinstance(error, asyncpg.ClientConfigurationError)
        return Invalid([Fault("body", "holds a value that can't be stored")]) if unfit else None
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state in UNAVAILABLE_STATES or state[:2] in UNAVAILABLE_CLASSES:
            return Unavailable("the database is not available")
        if state[:2] in BAD_VALUE_CLASSES:
            return Invalid([Fault("body", "holds a value that can't be stored")])
        return None
    if isinstance(error, asyncpg.InternalClientError):
        # A server that stops in the midst of an exchange can leave the connection's protocol between two states. Such a
        # connection is of no use to anybody, and whoever holds it drops it.
        return Unavailable("the connection to the database was lost")
    if isinstance(error, OSError | TimeoutError):
        return Unavailable("the database can't be reached")
    return None


def told(error: BaseException) -> TaskdError | None:
    """As `translate`, with a line for whoever looks for the reason of an outage."""
    known = translate(error)
    if isinstance(known, Unavailable):
        logger.debug("the database failed: %s: %s", type(error).__name__, error)
    return known


@contextmanager
def translated() -> Iterator[None]:
    """Raise what happens inside as errors of taskd; what stands for none goes through as it is."""
    try:
        yield
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        raise known from error
