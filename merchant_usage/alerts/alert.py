"""What can be told, and what is known of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

# Merchants that travel with a failed run at most; the rest is counted.
MAX_MERCHANTS_KEPT: Final = 50


class AlertKind(StrEnum):
    """What an alert is about."""

    FAILED = "failed"
    MISMATCH = "mismatch"
    #: A run that was asked for what there is not: no outage.
    REFUSED = "refused"
    STILL_FAILING = "still_failing"
    LATE = "late"
    RECOVERED = "recovered"
    COUNTER_REGRESSED = "counter_regressed"
    DEAD_LETTERS = "dead_letters"
    NO_DATA = "no_data"
    ABOUT_TO_EXPIRE = "about_to_expire"
    INCOMPLETE = "incomplete"
    SOURCE_AT_RISK = "source_at_risk"
    #: A date that was sealed has another version, and nobody decided that.
    LATE_USAGE = "late_usage"
    #: What is stored is not what was sealed.
    SEAL_BROKEN = "seal_broken"
    #: Seals could not be written down outside of the database.
    SEAL_NOT_EXPORTED = "seal_not_exported"
    #: Never a message: that an incident is open in PagerDuty.
    INCIDENT = "incident"
    #: Never a message: that one of a kind got no answer, and is told once more.
    UNANSWERED = "unanswered"

    @property
    def is_failure(self) -> bool:
        """Whether it tells of a failed run."""
        return self in {AlertKind.FAILED, AlertKind.MISMATCH, AlertKind.STILL_FAILING}

    @property
    def ends_with_recovery(self) -> bool:
        """Whether the next verified run puts it right."""
        return self.is_failure or self is AlertKind.LATE


@dataclass(frozen=True, slots=True)
class Gap:
    """A merchant's usage that PostgreSQL does not hold as Redis does: the sums of the counters that differ."""

    merchant_id: str
    redis: int
    postgres: int

    @property
    def behind(self) -> int:
        """How much PostgreSQL lacks."""
        return self.redis - self.postgres


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """What is wrong, in numbers. `gaps` are those of the merchants who lack most, `merchants` and `counters` all.

    `at_least`: so many counters are wrong that only the first were looked at; `counters` alone has them all.
    """

    gaps: tuple[Gap, ...] = ()
    merchants: int = 0
    counters: int = 0
    behind: int = 0
    at_least: bool = False

    @classmethod
    def of(cls, gaps: Mapping[str, tuple[int, int]], counters: int) -> Discrepancy:
        """Of the sums in Redis and PostgreSQL by merchant."""
        every = [Gap(merchant, redis, postgres) for merchant, (redis, postgres) in gaps.items()]
        worst = sorted(every, key=lambda gap: (-abs(gap.behind), gap.merchant_id))
        return cls(tuple(worst[:MAX_MERCHANTS_KEPT]), len(every), counters, sum(gap.behind for gap in every))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "gaps": [[gap.merchant_id, gap.redis, gap.postgres] for gap in self.gaps],
            "merchants": self.merchants,
            "counters": self.counters,
            "behind": self.behind,
            "at_least": self.at_least,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Discrepancy:
        """The discrepancy that `to_json` wrote down."""
        gaps = tuple(Gap(*gap) for gap in data["gaps"])
        return cls(gaps, data["merchants"], data["counters"], data["behind"], data["at_least"])


@dataclass(frozen=True, slots=True)
class Alert:
    """One piece of news.

    Attributes:
        key: what it is about; what has the same key is told once.
        title: a few words.
        what: sentences for people. Like all that follows it may hold any text, somebody's ids too.
        error: the cause, in one line.
        advice: what to do.
        command: what to type for it. Pasting it decides nothing.
        link: where to look, as (label, address).
        run_id: of the run that it is about.
        decisions: what to type after `command`, a line a choice, once it is known what happened.
    """

    kind: AlertKind
    key: str
    title: str
    what: str
    dates: tuple[dt.date, ...] = ()
    discrepancy: Discrepancy = field(default_factory=Discrepancy)
    error: str | None = None
    advice: str = ""
    command: str | None = None
    link: tuple[str, str] | None = None
    run_id: str | None = None
    decisions: str = ""
