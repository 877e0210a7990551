"""How much made-up usage an hour has: by merchant and metric, hour of the day and day of the week.

Pure, and the same for an hour whenever it is asked.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from merchant_usage.model.keys import CounterKey

MERCHANTS: Final = (
    "acme",
    "acme:eu",
    "acme:eu:berlin",
    "bücher-stube",
    "café-🥐",
    "corner shop",
    "daily*deals",
    "fifty%off",
    "fjord-outdoor",
    "hanoi-phở",
    "kyoto-お茶",
    "lumen-optics",
    "merchant_00042",
    "merchant_00043",
    "nordlicht",
    "o'brien & sons",
    "petit[bateau]",
    "quito.flores",
    "riad-مراكش",
    "späti24",
    "tbilisi-ღვინო",
    "umami/bento",
    "wagashi?",
    "zeta",
)
#: What each costs at its busiest, in units a day.
METRICS: Final = {"api_calls": 40_000, "queries": 25_000, "emails_sent": 3_000, "storage_mb": 900}

# Of each hour of a day, beginning at midnight: an office is busy at eleven and at three, a shop in the evening.
HOUR: Final = dt.timedelta(hours=1)
OFFICE: Final = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 20, 16, 17, 20, 19, 15, 10, 6, 4, 3, 2, 2, 1)
SHOP: Final = (3, 2, 1, 1, 1, 1, 2, 4, 6, 8, 10, 12, 13, 12, 11, 11, 12, 14, 17, 20, 20, 17, 11, 6)
# Of each day of a week, beginning on Monday.
OFFICE_WEEK: Final = (1.0, 1.05, 1.05, 1.0, 0.9, 0.3, 0.25)
SHOP_WEEK: Final = (0.8, 0.8, 0.85, 0.95, 1.15, 1.4, 1.2)
# An hour may have so much more or less than its share.
NOISE: Final = 0.15


class Rhythm(NamedTuple):
    """A merchant's: what it uses of each metric on a day of an ordinary size, and when."""

    units: dict[str, float]
    hours: tuple[int, ...]
    week: tuple[float, ...]

    def expected(self, metric: str, hour: dt.datetime) -> float:
        """Units in the hour that begins then."""
        return self.units[metric] * self.week[hour.weekday()] * self.hours[hour.hour] / sum(self.hours)


@cache
def rhythm(merchant: str) -> Rhythm:
    """Half of the merchants are offices, the others shops; some are ten times as large as others."""
    dice = _dice(merchant)
    size = dice.choice((0.08, 0.2, 0.3, 0.5, 0.8))
    units = {metric: most * size * dice.uniform(0.5, 1) for metric, most in METRICS.items()}
    return Rhythm(units, *((OFFICE, OFFICE_WEEK) if dice.random() < 0.5 else (SHOP, SHOP_WEEK)))


def hours_between(start: dt.datetime, end: dt.datetime) -> Iterator[tuple[dt.datetime, float]]:
    """The hours from a full one on, each with how much of it lies before the end."""
    while start < end:
        yield start, min(1.0, (end - start) / HOUR)
        start += HOUR


def usage_of(hour: dt.datetime, part: float = 1) -> Iterator[tuple[CounterKey, int]]:
    """What is counted in the hour that begins then, or in a part of it; nothing where there is nothing."""
    dice = _dice(hour.isoformat())
    for merchant in MERCHANTS:
        of_merchant = rhythm(merchant)
        for metric in METRICS:
            units = of_merchant.expected(metric, hour) * dice.uniform(1 - NOISE, 1 + NOISE)
            if number := int(units * part + dice.random()):
                yield CounterKey(merchant, hour.date(), metric), number


def _dice(what: str) -> random.Random:
    return random.Random(what)  # noqa: S311 - made-up numbers, no secrets
