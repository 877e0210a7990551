"""Where the bars of a chart stand: geometry for the SVG that a template draws. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 910
HEIGHT: Final = 160
#: Of the room of a bar, the part that it fills.
FILLED: Final = 0.7


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. `place`: which of the values it is."""

    place: int
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Where something stands that stands over it."""
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars side by side, as high as their values, and what the highest stands for."""

    bars: Sequence[Bar]
    most: int
    width: int = WIDTH
    height: int = HEIGHT


def draw(values: Sequence[int | None]) -> Bars:
    """Bars for the values that there are. A value above zero is never so low that it cannot be seen."""
    most = max((value for value in values if value is not None), default=0)
    room = WIDTH / max(1, len(values))
    bars = []
    for place, value in enumerate(values):
        if value is not None:
            height = max(1.0, value / most * HEIGHT) if value > 0 else 0.0
            bars.append(
                Bar(
                    place,
                    round(place * room + room * (1 - FILLED) / 2, 1),
                    round(HEIGHT - height, 1),
                    round(room * FILLED, 1),
                    round(height, 1),
                )
            )
    return Bars(bars, most)
