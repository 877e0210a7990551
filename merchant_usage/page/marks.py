"""How the page says how a date stands: a glyph, a word and a colour, never a colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mark:
    """How something is marked.

    Attributes:
        glyph: one character, for where there is no room for words.
        word: what it means, as the command line says it.
        kind: a class of the style sheet: good, wait, bad or none.
    """

    glyph: str
    word: str
    kind: str


NO_RUN: Final = Mark("·", "no run", "none")
FAILED: Final = Mark("!", "failed", "bad")
UNFINISHED: Final = Mark("…", "unfinished", "wait")
PARTLY: Final = Mark("◔", "some merchants only", "wait")
_OF_VERDICTS: Final = {
    "verified": Mark("✓", "verified", "good"),
    "mismatch": Mark("✗", "mismatch", "bad"),
    "not_proven": Mark("?", "not proven", "bad"),
    "incomplete": Mark("◐", "incomplete", "wait"),
    "source_expired": Mark("∅", "source expired", "none"),
    "empty": Mark("○", "empty", "none"),
}


def mark(verdict: str | None, error: str | None = None) -> Mark:
    """The mark of a verdict; without one, of a run that failed or has come to no end."""
    if verdict is None:
        return FAILED if error else UNFINISHED
    return _OF_VERDICTS[verdict]
