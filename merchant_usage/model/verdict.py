"""What is said of one key, and of all keys of a run together. Pure rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport


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
    *, stored: int | None, carried: int, read: int | None, now: int | None, settled: bool, kept: int | None = None
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
        kept: where the counter stood when a person decided that the stored value is right, though it is higher.
    """
    if stored is None:
        return Verdict.MISSING if settled or now is None or read is not None else Verdict.GROWING
    if read is not None and stored < read:
        return Verdict.BEHIND
    if now is None:
        return Verdict.EXPIRED
    counted = stored - carried
    if counted > now:
        return Verdict.MATCH if kept is not None and now >= kept else Verdict.REGRESSED
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
        redis = "nothing" if self.now is None else self.now
        postgres = "no row" if self.stored is None else self.stored
        read = "" if self.read is None else f", this run read {self.read}"
        return f"{self.key}: Redis has {redis}, PostgreSQL has {postgres}{read} ({self.verdict})"


def would_do(report: DateReport) -> dict[str, int]:
    """What a run would do to the keys of a date that was compared as if settled, in the order in which it is told."""
    columns = {
        "would_store": [verdict for verdict in Verdict if verdict.fails],
        "unchanged": [Verdict.MATCH],
        "regressed": [Verdict.REGRESSED],
        "expired": [Verdict.EXPIRED],
    }
    return {name: sum(report.keys.get(verdict, 0) for verdict in verdicts) for name, verdicts in columns.items()}


@dataclass(slots=True)
class Proof:
    """What verification found: a report for each date, and the keys that fail it (of many, the first)."""

    reports: list[DateReport]
    failing: list[Difference] = field(default_factory=list)
    failing_count: int = 0
    regressed_count: int = 0
    merchants: list[tuple[Any, ...]] = field(default_factory=list)
    regressed: list[Difference] = field(default_factory=list)
