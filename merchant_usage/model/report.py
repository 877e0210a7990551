"""What a run says of one date: its verdict, its counts, its totals."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

#: Verdicts of keys that make totals differ, the worst first, and in which order they are told.
_TOLD_OF_KEYS: Final = ("missing", "behind", "regressed", "growing", "expired")
_TURNED_BAD: Final = "turned_bad"


class DateVerdict(StrEnum):
    """What verification says of a whole date."""

    VERIFIED = "verified"
    MISMATCH = "mismatch"
    SOURCE_EXPIRED = "source_expired"
    EMPTY = "empty"
    #: A part of the run failed, and no key of the date is wrong.
    NOT_PROVEN = "not_proven"
    #: Nobody read the end of the date while its keys lived; never sealed until a person decides.
    INCOMPLETE = "incomplete"

    @property
    def is_good(self) -> bool:
        """Whether the date is proven, or there is nothing of it to prove."""
        return self in {DateVerdict.VERIFIED, DateVerdict.SOURCE_EXPIRED, DateVerdict.EMPTY}


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
    """The end of a run, for one date.

    Attributes:
        bad_values: keys of it that hold no counter, when Redis was read last.
        turned_bad: those of them that held one, which is stored.
        undecided: counters that went backwards, now or earlier, and wait for a person's decision.
        kept: counters below what is stored, which a person decided is right.
        carried: rows that hold more than their counter, which began anew.
        complete: it was over and settled, and all that Redis has of all merchants is stored.
        merchants: how many merchants the run was for; None for all of them.
        broken_curves: counters whose hourly history does not lead to what is stored; it says nothing of the value.
        lowered: what PostgreSQL held when the date was last verified, and when this run began, if that was less.
        remark: what else a person has to know of it, in a sentence.
    """

    date: dt.date
    settled: bool
    verdict: DateVerdict
    counts: Counts = field(default_factory=Counts)
    keys: dict[str, int] = field(default_factory=dict)
    redis_total: int = 0
    postgres_total: int = 0
    bad_values: int = 0
    turned_bad: int = 0
    undecided: int = 0
    kept: int = 0
    carried: int = 0
    broken_curves: int = 0
    complete: bool = False
    merchants: int | None = None
    lowered: tuple[int, int] | None = None
    remark: str | None = None
    error: str | None = None

    @property
    def is_proven_whole(self) -> bool:
        """Whether the date is verified, over all merchants."""
        return self.verdict is DateVerdict.VERIFIED and self.merchants is None

    @property
    def name(self) -> str:
        """The date, and of how many merchants if not of all."""
        if self.merchants is None:
            return str(self.date)
        return f"{self.date}, {self.merchants:,} merchant{'' if self.merchants == 1 else 's'}"

    @property
    def why_unequal(self) -> dict[str, int]:
        """How many keys there are of each kind that makes the totals of Redis and PostgreSQL differ."""
        of_keys = {verdict: self.keys.get(verdict, 0) for verdict in _TOLD_OF_KEYS}
        others = {"kept": self.kept, "carried": self.carried, _TURNED_BAD: self.turned_bad}
        return {kind: number for kind, number in (of_keys | others).items() if number}

    @property
    def totals(self) -> str:
        """Both totals, why they differ, and what waits: `Redis 3, PostgreSQL 13: 1 expired, 1 carried`."""
        return self._totals(f"Redis {self.redis_total:,}, PostgreSQL {self.postgres_total:,}")

    @property
    def totals_in_brief(self) -> str:
        """The same, with one number where there is but one."""
        if self.redis_total != self.postgres_total:
            return self.totals
        return self._totals(f"{self.redis_total:,} in both")

    def _totals(self, told: str) -> str:
        why = format_kinds(self.why_unequal)
        told += f": {why}" if why else ""
        if self.undecided:
            told += f", and {self.undecided:,} counter{' waits' if self.undecided == 1 else 's wait'} for a decision"
        if self.broken_curves:
            told += f", and the hourly history of {self.broken_curves:,} does not lead there: someone else changed it"
        if self.lowered is None:
            return told
        before, now = self.lowered
        return (
            f"{told}; someone else lowered its rows: they held {before:,} when it was last verified, and {now:,} when "
            "this run began"
        )

    @property
    def keys_told(self) -> str:
        """How many keys there are of each kind."""
        match = {kind: number for kind, number in self.keys.items() if number and kind not in _TOLD_OF_KEYS}
        return format_kinds(match | self.why_unequal) or "none"

    def to_json(self) -> dict[str, Any]:
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
            "merchants": self.merchants,
            **({"why_unequal": self.why_unequal} if self.why_unequal else {}),
            **({"broken_curves": self.broken_curves} if self.broken_curves else {}),
            **({"lowered": list(self.lowered)} if self.lowered else {}),
        }


def together(reports: Sequence[DateReport]) -> DateReport:
    """The numbers of several dates of one run as one report, under the name of the first."""
    first = reports[0]
    total = DateReport(first.date, first.settled, first.verdict, merchants=first.merchants)
    for report in reports:
        total.counts.add(report.counts)
        total.keys = dict(Counter(total.keys) + Counter(report.keys))
        for name in (
            "redis_total",
            "postgres_total",
            "bad_values",
            _TURNED_BAD,
            "undecided",
            "kept",
            "carried",
            "broken_curves",
        ):
            setattr(total, name, getattr(total, name) + getattr(report, name))
        if report.lowered is not None:
            before, now = total.lowered or (0, 0)
            total.lowered = before + report.lowered[0], now + report.lowered[1]
    return total


def format_kinds(numbers: Mapping[str, int]) -> str:
    """How many there are of each kind of key, for people."""
    return ", ".join(
        f"{number:,} {'no number any more' if kind == _TURNED_BAD else kind}" for kind, number in numbers.items()
    )
