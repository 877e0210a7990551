"""A long life told step by step: a clock that tests set, scheduled runs at its time, and what people ask and decide."""

from __future__ import annotations

import datetime as dt
from typing import Any

from merchant_usage.model.keys import CounterKey
from merchant_usage.sink import ledger
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.scheduled import run_scheduled
from tests.support import NOW, Usage, raw, settings

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)


class Life:
    """A clock that tests set, and the scheduled runs at its time."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.now = NOW
        self.settings = settings(start=dt.datetime(2026, 11, 1))  # noqa: DTZ001 - as the environment gives it

    def present(self) -> dt.datetime:
        return self.now

    def run(self, now: dt.datetime | None = None) -> dict[dt.date, str]:
        """The run for the hour before; the verdicts of its dates. Nothing if it had nothing to do."""
        self.now = now or self.now
        return self.run_of(self.now.replace(minute=0, second=0) - HOUR)

    def run_of(self, start: dt.datetime) -> dict[dt.date, str]:
        """The run for the hour that begins then, late as it may be."""
        reports = run_scheduled(self.usage.client, self.usage.conn, start, self.settings)
        return {report.date: str(report.verdict) for report in reports or ()}

    def run_hours(self, first: dt.datetime, last: dt.datetime) -> None:
        """Every hourly run from one to another."""
        while first <= last:
            self.run(first)
            first += HOUR

    def count(self, counter: CounterKey, by: int, ttl: dt.timedelta | None = 7 * DAY) -> None:
        """As the API does; what is left to live is told by the set clock, which Redis does not have."""
        self.usage.client.incrby(raw(counter), by)
        if ttl is not None:
            self.usage.client.expire(raw(counter), ttl)


def at(date: dt.date, time: str) -> dt.datetime:
    return dt.datetime.combine(date, dt.time.fromisoformat(time), dt.UTC)


def is_sealed(usage: Usage, date: dt.date) -> bool:
    return date in ledger.sealed_dates(usage.conn, [date])


def open_letters(usage: Usage) -> list[tuple[bytes, str]]:
    return [(letter.redis_key, letter.reason) for letter in usage.letters() if not letter.resolved]


def rule(usage: Usage, decision: Decision, **which: Any) -> None:
    assert decide(usage.client, usage.conn, Ruling(decision, "a person"), "usage", **which).refused == []
