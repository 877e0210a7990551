"""What a run says of one date: its verdict, its counts, its totals."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class DateVerdict(StrEnum):
    """What verification says of a whole date."""

    VERIFIED = "verified"
    MISMATCH = "mismatch"
    SOURCE_EXPIRED = "source_expired"
    EMPTY = "empty"


@dataclass(slots=True)
class Counts:
    """What storing did, for one date. `read` are good values; the others add up to it."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    regressed: int = 0
    expired: int = 0
    dead_letters: int = 0

    @property
    def unchanged(self) -> int:
        """Rows that held the value already and were not touched."""
        return self.read - self.inserted - self.updated - self.regressed

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class DateReport:
    """The end of a run, for one date. `bad_values` are keys of it that hold no counter, when Redis was read last."""

    date: dt.date
    settled: bool
    verdict: DateVerdict
    counts: Counts = field(default_factory=Counts)
    keys: dict[str, int] = field(default_factory=dict)
    redis_total: int = 0
    postgres_total: int = 0
    bad_values: int = 0
    error: str | None = None

    def as_metadata(self) -> dict[str, Any]:
        """Plain JSON for logs, the asset event and the command line."""
        return {
            "date": self.date.isoformat(),
            "verdict": str(self.verdict),
            "settled": self.settled,
            "redis_total": self.redis_total,
            "postgres_total": self.postgres_total,
            "rows_inserted": self.counts.inserted,
            "rows_updated": self.counts.updated,
            "rows_unchanged": self.counts.unchanged,
            "dead_letters": self.counts.dead_letters,
            "keys": self.keys,
        }
