"""How a counter grew over its day: geometry for the SVG that a template draws. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from merchant_usage.model.curve import Step

WIDTH: Final = 910
HEIGHT: Final = 160
#: Runs read the last hour of a day a little after its end; what comes later than this stands at the edge.
AFTER: Final = dt.timedelta(hours=2)
#: Hours between two ticks.
TICK: Final = 6


@dataclass(frozen=True, slots=True)
class Point:
    """Where something stands, and what is said of it."""

    x: float
    y: float
    words: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through what had been counted at each reading.

    Attributes:
        line: the points of a polyline.
        corrections: where it was decided, and not counted, what is stored.
        ticks: hours of the clock.
        most: what the height stands for.
    """

    line: str
    corrections: list[Point]
    ticks: list[Point]
    most: int
    width: int = WIDTH
    height: int = HEIGHT


def draw(steps: Sequence[Step], zone: ZoneInfo) -> Curve | None:
    """The curve of one counter of a day; None where nothing is known of it.

    Between two readings the line is straight: nobody knows more.
    """
    if not steps:
        return None
    begin = dt.datetime.combine(steps[0].date, dt.time(), zone)
    end = begin + dt.timedelta(days=1)
    held, heights = 0, [0]
    for step in steps:
        held += step.value
        heights.append(held)
    most = max(*heights, 1)

    def place(moment: dt.datetime, value: int) -> tuple[float, float]:
        # In UTC: Python takes the difference of two moments of one place by what its clocks show.
        first, last, now = (each.astimezone(dt.UTC) for each in (begin, end, moment))
        part = (min(max(now, first), last + AFTER) - first) / (last + AFTER - first)
        return round(part * WIDTH, 1), round(HEIGHT - max(0, value) / most * HEIGHT, 1)

    places = [place(moment, value) for moment, value in zip(_moments(steps), heights, strict=True)]
    corrections = [
        Point(*there, f"corrected by {step.value:+,}")
        for step, there in zip(steps, places[1:], strict=True)
        if step.correction
    ]
    return Curve(" ".join(f"{x},{y}" for x, y in places), corrections, _ticks(begin, end, place), most)


def _moments(steps: Sequence[Step]) -> list[dt.datetime]:
    return [steps[0].from_at, *(step.to_at for step in steps)]


def _ticks(
    begin: dt.datetime, end: dt.datetime, place: Callable[[dt.datetime, int], tuple[float, float]]
) -> list[Point]:
    # Sums of aware moments go by the clock of the place, whether its day has 23, 24 or 25 hours.
    moments = [begin + dt.timedelta(hours=hours) for hours in range(0, 25, TICK)]
    return [Point(*place(moment, 0), f"{moment:%H:%M}") for moment in moments if moment <= end]
