"""Conditions of a request: `If-Match` and `If-None-Match` (RFC 9110 13.1)."""

from __future__ import annotations

from taskd.domain.fields import Bad, Schema
from taskd.domain.forms import Entry
from taskd.errors import Fault, Invalid
from taskd.http1 import etag
from taskd.http1.limits import BadRequest
from taskd.web.message import Request

# RFC 9110 8.8.3 and 5.6.1.2: `*`, or a list that may have empty elements but not only these.
_TAG = r'(W/)?"[!#-~\u0080-\u00ff]*"'
_TAGS = rf"^(\*|[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*)$"


class _TagList:
    """A list of entity tags, as `etag.parse` reads it."""

    def check(self, value: str) -> etag.Tags | Bad:
        try:
            return etag.parse(value.encode("latin-1"))
        except BadRequest as error:
            return Bad(error.message)

    read = check

    def schema(self) -> Schema:
        return {"type": "string", "pattern": _TAGS, "examples": ['"1"', '"1", W/"2"', "*"]}


_TAG_LIST = _TagList()
IF_MATCH = Entry(_TAG_LIST, "change only this version: the ETag of an answer", None)
IF_NONE_MATCH = Entry(_TAG_LIST, "answer only if it has changed: the ETag of an answer", None)


def if_match(request: Request) -> etag.Tags | None:
    """Return what `If-Match` names, None when it was not sent.

    Raises:
        Invalid: it is no list of entity tags.
    """
    return _tags(request, b"if-match", "If-Match")


def if_none_match(request: Request) -> etag.Tags | None:
    """Return what `If-None-Match` names; see `if_match`."""
    return _tags(request, b"if-none-match", "If-None-Match")


def _tags(request: Request, name: bytes, field: str) -> etag.Tags | None:
    given = request.head.get(name)
    if given is None:
        return None
    tags = _TAG_LIST.check(given.decode("latin-1"))
    if isinstance(tags, Bad):
        raise Invalid([Fault(field, tags.message)])
    return tags
