"""The data that the contestants move."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import redis

# A day that is over and settled, whenever the benchmark runs.
DAY = dt.date(2026, 11, 1)
NOW = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
METRICS = 10
# Commands in flight while writing: large enough to be quick, small enough for the server's buffers.
PAGE = 10_000


@dataclass(frozen=True)
class DataSet:
    """Merchants with ten metrics each on `days` days, of which one is wanted."""

    merchants: int
    days: int

    @property
    def wanted(self) -> int:
        """Keys that are to be moved."""
        return self.merchants * METRICS

    def write(self, client: redis.Redis) -> None:
        """Write all keys into an empty Redis."""
        page: dict[str, int] = {}
        for merchant in range(self.merchants):
            for day in range(self.days):
                date = DAY - dt.timedelta(days=day)
                for metric in range(METRICS):
                    page[f"usage:merchant_{merchant:06d}:{date}:metric_{metric}"] = merchant * 31 + metric + 1
            if len(page) >= PAGE:
                client.mset(page)
                page.clear()
        if page:
            client.mset(page)

    def grow(self, client: redis.Redis) -> None:
        """Raise every tenth counter of the wanted day."""
        pipeline = client.pipeline(transaction=False)
        for merchant in range(self.merchants):
            pipeline.incrby(f"usage:merchant_{merchant:06d}:{DAY}:metric_{merchant % METRICS}", 7)
            if len(pipeline) >= PAGE:
                pipeline.execute()
        pipeline.execute()
