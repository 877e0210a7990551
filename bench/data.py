"""The data that the contestants move."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import redis

# A day that is over and settled, whenever the benchmark runs; and a moment of that day, when it could still grow.
DAY: Final = dt.date(2026, 11, 1)
NOW: Final = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
NOON: Final = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
METRICS: Final = 10
# Commands in flight while writing: large enough to be quick, small enough for the server's buffers.
PAGE: Final = 10_000


@dataclass(frozen=True)
class DataSet:
    """Merchants with ten metrics each on `days` days, of which one is wanted, beside `others` foreign keys."""

    name: str
    merchants: int
    days: int = 1
    others: int = 0

    @property
    def wanted(self) -> int:
        """Keys that are to be moved."""
        return self.merchants * METRICS

    @property
    def keys(self) -> int:
        """All keys in Redis."""
        return self.wanted * self.days + self.others

    @property
    def total(self) -> int:
        """The sum of the wanted counters, before any is raised."""
        return sum(_value(merchant, metric) for merchant in range(self.merchants) for metric in range(METRICS))

    @property
    def description(self) -> str:
        """What it is, for a heading."""
        beside = f" beside {self.others:,} other keys" if self.others else ""
        days = f" over {self.days} days of which one is wanted" if self.days > 1 else ""
        return f"{self.name}: {self.merchants:,} merchants x {METRICS}{days}{beside}"

    def write(self, client: redis.Redis) -> None:
        """Write all keys into an empty Redis."""
        pairs = self._pairs()
        while page := dict(islice(pairs, PAGE)):
            client.mset(page)

    def grow(self, client: redis.Redis) -> None:
        """Raise every tenth counter of the wanted day."""
        pipeline = client.pipeline(transaction=False)
        for merchant in range(self.merchants):
            pipeline.incrby(f"usage:merchant_{merchant:06d}:{DAY}:metric_{merchant % METRICS}", 7)
            if len(pipeline) >= PAGE:
                pipeline.execute()
        pipeline.execute()

    def copy_pages(self) -> list[bytes]:
        """The wanted rows as COPY takes them, ready to be sent."""
        rows = (
            f"merchant_{merchant:06d}\t{DAY}\tmetric_{metric}\t{_value(merchant, metric)}\n"
            for merchant in range(self.merchants)
            for metric in range(METRICS)
        )
        pages = []
        while page := "".join(islice(rows, 1000)):
            pages.append(page.encode())
        return pages

    def _pairs(self) -> Iterator[tuple[str, int]]:
        dates = [DAY - dt.timedelta(days=day) for day in range(self.days)]
        for merchant in range(self.merchants):
            for date in dates:
                for metric in range(METRICS):
                    yield f"usage:merchant_{merchant:06d}:{date}:metric_{metric}", _value(merchant, metric)
        for number in range(self.others):
            yield f"session:{number:09d}", number


def _value(merchant: int, metric: int) -> int:
    return merchant * 31 + metric + 1


SMALL: Final = DataSet("small", 100)
# The largest that the original design finishes in seconds.
MODEST: Final = DataSet("modest", 1000)
# What most have who bill by the hour.
USUAL: Final = DataSet("usual", 5000)
MEDIUM: Final = DataSet("medium", 10_000, days=8)
LARGE: Final = DataSet("large", 100_000, others=1_000_000)
QUICK: Final = DataSet("quick", 100, days=2, others=1000)
