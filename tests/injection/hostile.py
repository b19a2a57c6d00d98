"""Texts that mean something to whatever a user's text passes through, and must mean nothing there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

TEXTS: Mapping[str, str] = {
    "quotes": "'; DROP TABLE tasks; --",
    "doubled": "''\"\"``$$ $tag$ E'\\x41' U&'\\0041'",
    "comment": "/* */ -- \\g \\! id",
    "or": "x' OR '1'='1",
    "union": "1 UNION SELECT usename, passwd FROM pg_shadow",
    "sleep": "1); SELECT pg_sleep(100); --",
    "parameters": "$1 $2 :query :owner %s %(name)s {0} {name} ? --? owner",
    "like": "%_%\\%\\_",
    "tsquery": "a & !b | (c <-> d:*) <2> e:ABCD 'f''g'",
    "half a tsquery": "'unbalanced ( & | ! <-> :*",
    "json path": "$.a[*] ? (@ > 1) {a,b} #>> '{}'",
    "json": '{"a": "b"}\\u0000\\ud800", "owner": "admin',
    "json breaking": '"}\n{"level": "error", "message": "forged"}',
    "lines": "one\r\nTwo: 2\r\n\r\n<b>\nthree\rfour",
    "other line ends": "a\u0085b\u2028c\u2029d\x0be\x0cf",
    "ansi": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x08\x7f",
    "controls": "".join(map(chr, range(1, 32))),
    "bidi": "\u202egnp.exe\u202c \u2066\u200f\ufeff",
    "script": "<script>alert(1)</script>",
    "markup": '"><img src=x onerror=alert(1)>&lt;&amp;&#60;<mark>not ours</mark>',
    "javascript": "javascript:alert(1)//';alert(1)//\"--></style></script><svg/onload=alert(1)>",
    "sse": "x\n\nevent: deleted\nid: 1\ndata: {}\n\n",
    "metric": 'a"} 1\ntaskd_tasks{status="forged\\',
    "redis": "\r\n*1\r\n$8\r\nFLUSHALL\r\n a:b:c {x} [y] *",
    "path": "../../etc/passwd\\..\\ %2e%2e%2f ~root",
    "shell": "; rm -rf / & $(id) `id` | cat > x",
    "template": "{{7*7}} ${7*7} <%= 7*7 %> #{7*7}",
    "link": '>; rel="next", <http://evil>; rel="x',
    "beyond the plane": "\U0001f4a9\U000e0041\U0010ffff e\u0301 \u0130 \ufb01",
    "marks of highlights": "\x01found\x02 \x03 taskd",
}
"""By what they are aimed at. All can be stored, and are at most 200 characters long."""

each = pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))

NUL = "a\0b"
HALF = "a\ud800b"
"""Neither can be stored: PostgreSQL has no NUL in text, and UTF-8 no lone surrogates."""
