"""Every error that taskd raises on purpose.

    TaskdError
    ├── Rejected                 the caller's fault: answered, never logged with a traceback
    │   ├── Malformed            the message can't be read at all
    │   ├── Unauthenticated      no token, or one that names nobody
    │   ├── Forbidden            a known user may not do this
    │   ├── NotFound             no such thing, or not this user's
    │   ├── NotAcceptable        no representation that the caller takes
    │   ├── Conflict             the task's status does not allow this
    │   ├── StaleVersion         the caller's version is not the current one
    │   ├── TooLarge             a body over its limit
    │   ├── UnsupportedMedia     a body in a format or coding that is not read here
    │   ├── Invalid              readable, but some fields are wrong (all of them are listed)
    │   ├── KeyReused            an idempotency key came back with another body
    │   └── RateLimited          too many calls; says when to come back
    ├── Unavailable              a part that is needed is away for now; says when to come back
    ├── ConfigError              a setting is missing or wrong; stops the start
    └── StartError               a part could not start

`code` is stable and goes to clients; each transport owns one table from these classes to its own status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
    """One wrong field of a request: its path (`tasks[3].title`) and what is wrong with it."""

    field: str
    message: str


class TaskdError(Exception):
    """Base of all errors of taskd. `str()` is one sentence that may be shown to the user."""

    code = "internal"
    title = "Internal error"


class Rejected(TaskdError):
    """The caller's fault."""

    code = "rejected"
    title = "Request refused"


class Malformed(Rejected):
    """The message can't be read at all (bad JSON, bad percent-encoding)."""

    code = "malformed"
    title = "Malformed request"


class Unauthenticated(Rejected):
    """No credentials, or credentials that name nobody."""

    code = "unauthenticated"
    title = "Authentication required"


class Forbidden(Rejected):
    """The user is known and may not do this. Never used for another user's task: that is `NotFound`."""

    code = "forbidden"
    title = "Not allowed"


class NotFound(Rejected):
    """Nothing there, or nothing that this user may see."""

    code = "not-found"
    title = "Not found"


class NotAcceptable(Rejected):
    """No representation that the caller's `Accept` takes."""

    code = "not-acceptable"
    title = "Not acceptable"


class Conflict(Rejected):
    """The task's status does not allow the change."""

    code = "conflict"
    title = "Conflict with the task's status"


class StaleVersion(Rejected):
    """The version in `If-Match` is not the current one."""

    code = "stale-version"
    title = "The task has changed meanwhile"


class TooLarge(Rejected):
    """A body over its limit."""

    code = "too-large"
    title = "Too large"


class UnsupportedMedia(Rejected):
    """A body in a media type or content coding that is not read here."""

    code = "unsupported-media"
    title = "Unsupported media type"


class Invalid(Rejected):
    """Readable, but wrong in at least one field.

    Args:
        faults: every fault of the request, in the order of its fields; at least one.
    """

    code = "validation"
    title = "Invalid request"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in self.faults))


class KeyReused(Rejected):
    """An idempotency key came back with another body."""

    code = "idempotency-key-reused"
    title = "Idempotency key reused"


class RateLimited(Rejected):
    """Too many calls. `retry_after` is in seconds."""

    code = "rate-limited"
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(TaskdError):
    """A part that is needed is away for now. `retry_after` is in seconds."""

    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigError(TaskdError):
    """A setting is missing or wrong. The message names the setting and fits one line."""

    code = "config"
    title = "Bad configuration"


class StartError(TaskdError):
    """A part could not start. The message says which, and what to do about it."""

    code = "start"
    title = "Start failed"
