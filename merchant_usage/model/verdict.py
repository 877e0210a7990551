"""What is said of one key, and of all keys of a run together. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from merchant_usage.model.audit import Audit
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.seal import Seal


class Verdict(StrEnum):
    """What verification says of one key."""

    MATCH = "match"
    GROWING = "growing"
    MISSING = "missing"
    BEHIND = "behind"
    REGRESSED = "regressed"
    EXPIRED = "expired"

    @property
    def fails(self) -> bool:
        """Whether one such key makes its date a mismatch."""
        return self in {Verdict.MISSING, Verdict.BEHIND}


def judge(
    *,
    stored: int | None,
    carried: int,
    read: int | None,
    now: int | None,
    settled: bool,
    accepted_from: int | None = None,
) -> Verdict:
    """The verdict on one key. Pure, so that it can be tested to death.

    Args:
        stored: `metric_value` in PostgreSQL, looked up before `now` was read; None without a row.
        carried: what `metric_value` holds beyond the counter (after a restart from zero).
        read: what PostgreSQL must hold at least, because this run read so much (and carried so much); None if the
            run did not read the key, or does not know.
        now: the counter in Redis, read last; None if the key is gone. Gone and never stored is `missing` too:
            that usage is lost.
        settled: the date is over and settled: equality, not just the right order, is required.
        accepted_from: where the counter stood when a person decided that the stored value is right.
    """
    if stored is None:
        return Verdict.MISSING if settled or now is None or read is not None else Verdict.GROWING
    if read is not None and stored < read:
        return Verdict.BEHIND
    if now is None:
        return Verdict.EXPIRED
    counted = stored - carried
    if counted > now:
        return Verdict.MATCH if accepted_from is not None and now >= accepted_from else Verdict.REGRESSED
    if counted == now:
        return Verdict.MATCH
    return Verdict.BEHIND if settled else Verdict.GROWING


@dataclass(frozen=True, slots=True)
class Difference:
    """One key on which Redis and PostgreSQL do not agree."""

    key: CounterKey
    verdict: Verdict
    stored: int | None
    carried: int
    read: int | None
    now: int | None

    @property
    def is_unequal(self) -> bool:
        """Whether there is a counter in Redis and PostgreSQL does not hold it."""
        return self.now is not None and self.verdict is not Verdict.MATCH

    def __str__(self) -> str:
        """A line with merchant, metric, date and both numbers."""
        redis = "nothing" if self.now is None else f"{self.now:,}"
        postgres = "no row" if self.stored is None else f"{self.stored:,}"
        read = "" if self.read is None else f", this run read {self.read:,}"
        return f"{self.key}: Redis has {redis}, PostgreSQL has {postgres}{read} ({self.verdict})"


def preview_counts(report: DateReport) -> dict[str, int]:
    """What a run would do to the keys of a date that was compared as if settled, in the order in which it is told."""
    columns = {
        "would_store": [verdict for verdict in Verdict if verdict.fails],
        "unchanged": [Verdict.MATCH],
        "regressed": [Verdict.REGRESSED],
        "expired": [Verdict.EXPIRED],
    }
    return {name: sum(report.keys.get(verdict, 0) for verdict in verdicts) for name, verdicts in columns.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DateFindings:
    """What is known of a date when its keys have been judged.

    Attributes:
        settled: the date was over and settled when the run began.
        verdicts: how many keys have which verdict.
        in_redis: keys that hold a counter in Redis.
        in_postgres: rows.
        is_undecided: a counter of it waits for a decision, or holds no number any more.
        was_complete: an earlier run read the end of the date and stored it, or a person decided that this stands.
        was_verified_by_run: this very run verified it once already.
        may_have_expired: keys of it may be gone that nobody read to their end.
        was_watched: runs were at work before the date was over, so that its end should have been read.
    """

    settled: bool
    verdicts: Mapping[Verdict, int]
    in_redis: int
    in_postgres: int
    is_undecided: bool = False
    was_complete: bool = False
    was_verified_by_run: bool = False
    may_have_expired: bool = False
    was_watched: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether nobody read the end of the date while its keys lived, as far as can be known."""
        return self.settled and not self.was_complete and self.may_have_expired

    def is_complete(self, verdict: DateVerdict) -> bool:
        """Whether what the run found and stored is all that there will ever be of the date."""
        fails = any(number for key_verdict, number in self.verdicts.items() if key_verdict.fails)
        if not self.settled or self.is_lost or fails:
            return False
        return verdict is not DateVerdict.INCOMPLETE


def judge_date(found: DateFindings) -> DateVerdict:
    """The verdict on a date. Pure.

    A regression is a mismatch too, so its date is neither sealed nor cleaned up; it does not fail the run, because its
    dead letter already asks a person to decide and the other merchants should not wait for that.
    """
    refuted = any(number for verdict, number in found.verdicts.items() if verdict.fails or verdict is Verdict.REGRESSED)
    if refuted or found.is_undecided:
        return DateVerdict.MISMATCH
    if found.in_redis:
        return DateVerdict.INCOMPLETE if found.is_lost else DateVerdict.VERIFIED
    if found.is_lost and found.was_watched:
        return DateVerdict.INCOMPLETE
    if found.in_postgres:
        return DateVerdict.VERIFIED if found.was_verified_by_run else DateVerdict.SOURCE_EXPIRED
    return DateVerdict.EMPTY


@dataclass(slots=True)
class Proof:
    """What verification found: a report for each date, and the keys that fail it (of many, the first)."""

    reports: list[DateReport]
    failing: list[Difference] = field(default_factory=list)
    failing_count: int = 0
    regressed_count: int = 0
    merchants: list[tuple[Any, ...]] = field(default_factory=list)
    regressed: list[Difference] = field(default_factory=list)
    #: What was sealed after it, and what the audit of the day found, if this run made it.
    seals: list[Seal] = field(default_factory=list)
    audit: Audit | None = None

    @property
    def is_void(self) -> bool:
        """Whether Redis has nothing of any of the dates, so that nothing was proven."""
        return all(report.verdict in {DateVerdict.EMPTY, DateVerdict.SOURCE_EXPIRED} for report in self.reports)
