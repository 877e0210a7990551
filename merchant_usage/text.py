"""What other people wrote, made safe to show. Keys, ids and values are whatever somebody could write into Redis."""

from __future__ import annotations


def escape(text: str) -> str:
    """The text with every control character spelt out: a newline would forge a log line, ESC command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(escape, text.split("\n")))
