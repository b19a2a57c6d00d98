"""What was found in a text, marked in it.

PostgreSQL marks words in the text as it is searched (`search_text` in the database): with «е» for «ё», and spaces for
what separates words. That text has a character for each of the original's composed form (NFC), so whatever it shows is
found there again by its place, and shown as its author wrote it.
"""

from __future__ import annotations

import re
from unicodedata import normalize

START, STOP, BETWEEN = "\x01", "\x02", "\x03"
"""Before and after a word that was found, and between two parts of a text."""

ELLIPSIS = " … "

_YO = str.maketrans("ёЁ", "еЕ")
_SEPARATORS = re.compile(
    "[<>\u0001-\u0003\u00a0-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2000-\u214f\u2190-\u2bff"
    "\u2e00-\u2e7f\u3000-\u3004\u3008-\u3020\u3030\ufe00-\ufe0f\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff65\U0001f000-\U0001faff]"
)
_PIECES = re.compile(r"\s+|\S+")
_MARKS = re.compile(f"[{START}{STOP}]")
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
"""As `html.escape` has it; the module itself loads the names of 2231 characters."""


def search_text(original: str) -> str:
    """Return a text as it is searched: what the database's function of this name does; a test compares the two."""
    return _SEPARATORS.sub(" ", normalize("NFC", original).translate(_YO))


def marked(original: str, shown: str) -> str:
    """Return HTML of the parts of a text that are shown, with `<mark>` around the words that were found.

    Args:
        original: the text as its author wrote it.
        shown: parts of it as it is searched, with `START`, `STOP` and `BETWEEN`.
    """
    original = normalize("NFC", original)
    searched = search_text(original)
    parts: list[str] = []
    place = 0
    for part in shown.split(BETWEEN):
        pieces: list[str] = []
        # Word by word: the database leaves out those that are too long for it to look at.
        for piece in _PIECES.findall(part):
            plain = _MARKS.sub("", piece)
            found = searched.find(plain, place)
            text = plain if found < 0 else original[found : found + len(plain)]
            place = place if found < 0 else found + len(plain)
            pieces.append(_marked_part(text, piece))
        parts.append("".join(pieces))
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
            out.append(original[place : place + len(piece)].translate(_ESCAPED))
            place += len(piece)
    return "".join(out)
