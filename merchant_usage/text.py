"""What other people wrote, made safe to show. Keys, ids and values are whatever somebody could write into Redis."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final


class Place(StrEnum):
    """Where a text is shown, which decides what in it would be taken for more than text."""

    #: A line of a log, a table or a terminal.
    LINE = "line"
    #: The note of a run: Airflow's UI shows it as Markdown.
    NOTE = "note"
    #: A `plain_text` of Slack.
    SLACK = "slack"
    #: The text of an HTML element, or an attribute in quotes.
    HTML = "html"


_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_TABLES: Final = {
    Place.SLACK: str.maketrans(_ENTITIES),
    Place.HTML: str.maketrans({**_ENTITIES, '"': "&quot;", "'": "&#x27;"}),
}
# What begins a link, an image, HTML, an entity, emphasis or a table; an underscore within a word begins nothing. Then
# what GitHub's Markdown makes a link of by itself.
_MARKDOWN: Final = re.compile(r"[\\\[\]<>&!*~|@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)


def safe(text: str, place: Place) -> str:
    """A foreign text as one line that is nothing but text there.

    A newline would forge a line of a log, ESC command a terminal, a picture in a note ask a stranger's server.
    """
    line = escape(text)
    if place is Place.NOTE:
        return _MARKDOWN.sub(r"\\\g<0>", line)
    return line.translate(_TABLES[place]) if place in _TABLES else line


def escape(text: str) -> str:
    """The text with every control character spelt out, those that turn the direction of writing too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def storable(text: str) -> str:
    """The text as PostgreSQL takes it: NUL, and what is no character (a half of one, a byte of a name), spelt out."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def printable(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(escape, text.split("\n")))


def as_one_entry(text: str) -> str:
    """The same where each line that is not indented begins a new entry."""
    first, *others = printable(text).split("\n")
    return "\n".join([first, *(line if line.startswith(" ") else f"  {line}" for line in others)])


def shown(identifier: str, longest: int = 80) -> str:
    """An id as logs and errors show it: on one line, then cut in the middle, because long ones differ at their ends."""
    escaped = escape(identifier)
    if len(escaped) <= longest:
        return escaped
    head, tail = longest // 2, (longest - 1) // 2
    return f"{escaped[:head]}…{escaped[-tail:]}"


def capitalized(text: str) -> str:
    """A text that begins a sentence; the rest of it stays as it is."""
    return text[:1].upper() + text[1:]
