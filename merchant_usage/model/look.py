"""What a first look at both servers finds. Pure."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

#: Rows that PostgreSQL takes in a second, on a small machine: a cautious half of what was measured.
ROWS_A_SECOND: Final = 50_000
#: What a row and its place in the index take, about.
BYTES_A_ROW: Final = 200


@dataclass(slots=True)
class DayLook:
    """What both servers have of a date, and what a run would do: of counters, but for `bad`, which hold none.

    Attributes:
        lower: counters below what is stored; a run keeps what is stored, and asks.
        without_counter: rows whose key is not in Redis (any more).
    """

    date: dt.date
    merchants: int = 0
    keys: int = 0
    redis_total: int = 0
    rows: int = 0
    postgres_total: int = 0
    new: int = 0
    raised: int = 0
    unchanged: int = 0
    lower: int = 0
    bad: int = 0
    without_counter: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "date": self.date.isoformat()}


@dataclass(slots=True)
class Look:
    """All that a first look found.

    Attributes:
        keys: below the prefix, whatever their dates.
        other_dates: of good keys whose dates were not looked at, how many a date has.
        tables: what of our tables is there, in a sentence.
        odd: what somebody should know before a run, a sentence each.
        unseen: what could not be looked at, and the right that is missing.
        scan_seconds, read_seconds: what the look itself took.
        pages: requests that reading the values took.
    """

    keys: int = 0
    days: list[DayLook] = field(default_factory=list)
    other_dates: Counter[dt.date] = field(default_factory=Counter)
    tables: str = ""
    odd: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    scan_seconds: float = 0
    read_seconds: float = 0
    pages: int = 0

    @property
    def to_write(self) -> int:
        """Rows that a run would write."""
        return sum(day.new + day.raised for day in self.days)

    @property
    def run_seconds(self) -> float:
        """How long a run would take, about: it scans once, reads twice, and writes."""
        return self.scan_seconds + 2 * self.read_seconds + self.to_write / ROWS_A_SECOND

    @property
    def run_bytes(self) -> int:
        """What new rows would take in PostgreSQL, about."""
        return sum(day.new for day in self.days) * BYTES_A_ROW

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "keys": self.keys,
            "days": [day.to_json() for day in self.days],
            "other_dates": {date.isoformat(): number for date, number in sorted(self.other_dates.items())},
            "tables": self.tables,
            "odd": self.odd,
            "unseen": self.unseen,
            "look": {"scan_seconds": round(self.scan_seconds, 3), "read_seconds": round(self.read_seconds, 3)},
            "run": {
                "seconds": round(self.run_seconds, 3),
                "scans": 1,
                "requests_for_values": 2 * self.pages,
                "rows_written": self.to_write,
                "bytes": self.run_bytes,
            },
        }
