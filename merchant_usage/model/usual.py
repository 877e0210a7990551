"""What is usual of a day: what was counted on the same weekday of the weeks before. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Weeks that a day is compared with. Of fewer than two nothing is usual.
WEEKS: Final = 4
FEWEST: Final = 2
#: A day is unlike the usual from so many times as much, or as little.
BEYOND: Final = 2
#: Whatever the ratio is, a smaller difference is chance.
CHANCE: Final = 10


@dataclass(frozen=True, slots=True)
class Unlike:
    """A day that is unlike the usual: in which direction, by which share of the usual, and that in words."""

    is_more: bool
    share: float
    words: str


def usual_of(before: Iterable[int | None]) -> int | None:
    """The median of what was counted in the weeks before; None where too few of them are known."""
    known = sorted(value for value in before if value is not None)
    if len(known) < FEWEST:
        return None
    middle = len(known) // 2
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) // 2


def compare(value: int | None, usual: int | None) -> Unlike | None:
    """How a day that is over is unlike the usual. None: it is not, or nothing is usual.

    Args:
        value: None where nothing is stored, as if it were nothing.
    """
    counted = value or 0
    if usual is None or abs(counted - usual) < CHANCE:
        return None
    if usual == 0:
        return Unlike(True, float("inf"), "usually nothing")
    if counted == 0:
        return Unlike(False, 1, f"nothing, and {usual:,} is usual")
    if counted >= usual * BEYOND:
        return Unlike(True, counted / usual - 1, f"{_times(counted, usual)} times the usual")
    if counted * BEYOND <= usual:
        return Unlike(False, 1 - counted / usual, f"{_times(counted, usual)} times the usual")
    return None


def _times(value: int, usual: int) -> str:
    """A ratio: a large one without places, a small one with as many as it takes to be more than nothing."""
    if value >= usual * 100:
        return f"{value // usual:,}"
    if value * 20 >= usual:
        return f"{round(value / usual, 1):,}"
    return f"{value / usual:.1g}" if value * 10_000 >= usual else "less than 0.0001"
