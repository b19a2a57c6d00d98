"""What was found in a text, marked in it.

PostgreSQL marks words in the text as it is searched: with «е» for «ё», and spaces for angle brackets and for the
characters that stand for marks. That text has a character for each of the original's, so whatever it shows is found
there again by its place, and shown as its author wrote it.
"""

from __future__ import annotations

import html
import re

START, STOP, BETWEEN = "\x01", "\x02", "\x03"
"""Before and after a word that was found, and between two parts of a text."""

ELLIPSIS = " … "

_SEARCHED = str.maketrans("ёЁ<>" + START + STOP + BETWEEN, "еЕ     ")
_MARKS = re.compile(f"[{START}{STOP}]")


def marked(original: str, shown: str) -> str:
    """Return HTML of the parts of a text that are shown, with `<mark>` around the words that were found.

    Args:
        original: the text as its author wrote it.
        shown: parts of it as it is searched, with `START`, `STOP` and `BETWEEN`.
    """
    searched = original.translate(_SEARCHED)
    parts: list[str] = []
    place = 0
    for part in shown.split(BETWEEN):
        plain = _MARKS.sub("", part)
        found = searched.find(plain, place)
        if found < 0:
            found, original, searched = 0, plain, plain
        parts.append(_marked_part(original[found : found + len(plain)], part))
        place = found + len(plain)
    return ELLIPSIS.join(parts)


def _marked_part(original: str, part: str) -> str:
    out: list[str] = []
    place = 0
    for piece in re.split(f"([{START}{STOP}])", part):
        if piece == START:
            out.append("<mark>")
        elif piece == STOP:
            out.append("</mark>")
        else:
            out.append(html.escape(original[place : place + len(piece)]))
            place += len(piece)
    return "".join(out)
