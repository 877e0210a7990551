"""Which dates a run handles. Pure: the data interval, the settings and one reading of the clock decide."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from merchant_usage.errors import SettingsError
from merchant_usage.settings import Settings

# A year. Counters live for days: more is a slip of the pen in the year, and each date costs a row of the ledger.
MAX_DATES: Final = 366
# Dates, or ranges of them, that a sentence names: more nobody reads.
MAX_DATES_NAMED: Final = 5
# Where there is little room.
MAX_DATES_SPELT_OUT: Final = 2


@dataclass(frozen=True, slots=True)
class Scope:
    """One date of a run, and of whom.

    `settled`: the day was over, with its settle hours, when the run began; then PostgreSQL must equal Redis.
    `merchant_ids`: None for all merchants.
    """

    date: dt.date
    settled: bool
    merchant_ids: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        merchants = None if self.merchant_ids is None else list(self.merchant_ids)
        return {"date": self.date.isoformat(), "settled": self.settled, "merchant_ids": merchants}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scope:
        """The scope that `to_json` wrote down."""
        merchants = None if data["merchant_ids"] is None else tuple(data["merchant_ids"])
        return cls(dt.date.fromisoformat(data["date"]), data["settled"], merchants)


def local_date(moment: dt.datetime, settings: Settings) -> dt.date:
    """The usage date of a moment: its day in `USAGE_TIMEZONE`."""
    return moment.astimezone(settings.timezone).date()


class KeyRules(NamedTuple):
    """The settings that decide what keys mean. The ledger keeps those of each run."""

    key_prefix: str
    timezone: str
    settle_hours: int
    retention_days: int

    @classmethod
    def of(cls, settings: Settings) -> KeyRules:
        """Those of some settings."""
        return cls(settings.key_prefix, settings.timezone.key, settings.settle_hours, settings.retention_days)

    def changes(self, later: KeyRules) -> list[str]:
        """What is another value in later rules, in words."""
        names = ("USAGE_KEY_PREFIX", "USAGE_TIMEZONE", "USAGE_SETTLE_HOURS", "USAGE_RETENTION_DAYS")
        return [f"{name} was {a}, is {b}" for name, a, b in zip(names, self, later, strict=True) if a != b]

    def midnight(self, date: dt.date) -> dt.datetime:
        """When a day begins, in UTC."""
        return dt.datetime.combine(date, dt.time(), ZoneInfo(self.timezone)).astimezone(dt.UTC)

    def settled_at(self, date: dt.date) -> dt.datetime:
        """When a day is over and settled, in UTC. Settle hours are hours that pass, whatever clocks are changed."""
        return self.midnight(date + dt.timedelta(days=1)) + dt.timedelta(hours=self.settle_hours)

    def kept_until(self, date: dt.date) -> dt.datetime:
        """Until when none of a day's keys can have expired: the first of them are as old as the day."""
        return self.midnight(date + dt.timedelta(days=self.retention_days))


def end_of(date: dt.date, settings: Settings) -> dt.datetime:
    """The midnight after a day, in `USAGE_TIMEZONE`."""
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), settings.timezone)


def is_settled(date: dt.date, now: dt.datetime, settings: Settings, others: Iterable[KeyRules] = ()) -> bool:
    """Whether a day is over and its settle hours have passed, so that its counters stand still.

    Args:
        others: rules that runs of these days went by; the day has to be settled by all of them.
    """
    return all(now >= rules.settled_at(date) for rules in (KeyRules.of(settings), *others))


def oldest_kept(today: dt.date, settings: Settings) -> dt.date:
    """The oldest date whose keys are still within the retention."""
    return today - dt.timedelta(days=settings.retention_days)


def dates_of_interval(start: dt.datetime, now: dt.datetime, settings: Settings) -> list[dt.date]:
    """The dates of the run for the data interval that begins at `start`.

    The date of `start`; during the first settle hours of a day also the day before; the first run of a day
    sweeps every date still within the retention.
    """
    date = local_date(start, settings)
    dates = {date}
    if start < KeyRules.of(settings).settled_at(date - dt.timedelta(days=1)):
        dates.add(date - dt.timedelta(days=1))
    if local_date(start - settings.interval, settings) != date:
        age = (date - oldest_kept(local_date(now, settings), settings)).days
        dates.update(date - dt.timedelta(days=days) for days in range(age + 1))
    return sorted(dates)


def parse_day(name: str, value: str) -> dt.date:
    """A date as people give it.

    Raises:
        SettingsError: naming the parameter, the value and what is accepted.
    """
    try:
        date = dt.date.fromisoformat(value)
        if date.isoformat() != value:  # a week's day, or no dashes
            raise ValueError
    except ValueError:
        raise SettingsError(f"{name}={value!r} is not a date; it takes YYYY-MM-DD, e.g. 2026-11-01.") from None
    return date


def dates_of_range(
    from_date: str | None,
    to_date: str | None,
    now: dt.datetime,
    settings: Settings,
    names: tuple[str, str] = ("from_date", "to_date"),
    asked_at: dt.datetime | None = None,
) -> list[dt.date]:
    """The dates from one day to another, both included. Both empty: yesterday. One empty: the other.

    Args:
        names: what the two are called where they were given.
        asked_at: whose yesterday is meant, if not now's: what was asked for days ago means the same day still.

    Raises:
        SettingsError: for what is no date, a day to come, or a range that ends before it begins or takes over a year.
    """
    today = local_date(now, settings)
    if not from_date and not to_date:
        return [local_date(min(asked_at or now, now), settings) - dt.timedelta(days=1)]
    # The one that is empty is the other, by its name too.
    first_name, last_name = names[0] if from_date else names[1], names[1] if to_date else names[0]
    first = parse_day(first_name, from_date or to_date or "")
    last = parse_day(last_name, to_date or from_date or "")
    named_first, named_last = f"{first_name}={first}", f"{last_name}={last}"
    if last < first:
        raise SettingsError(f"{named_last} lies before {named_first}; the range takes both days, in order.")
    if last > today:
        raise SettingsError(f"{named_last} is in the future; the last day there is to aggregate is {today}.")
    count = (last - first).days + 1
    if count > MAX_DATES:
        raise SettingsError(f"{named_first} to {named_last} is {count:,} days; a run takes {MAX_DATES} at most.")
    return [first + dt.timedelta(days=days) for days in range(count)]


def date_ranges(dates: Iterable[dt.date]) -> list[list[dt.date]]:
    """Dates in runs of neighbours."""
    ranges: list[list[dt.date]] = []
    for day in sorted(set(dates)):
        if ranges and day - ranges[-1][-1] == dt.timedelta(days=1):
            ranges[-1].append(day)
        else:
            ranges.append([day])
    return ranges


def format_dates(dates: Iterable[dt.date]) -> str:
    """Dates as people read them: each of a few, of many the ranges: `2026-11-17 to 2026-11-24 (8 days)`."""
    days = sorted(set(dates))
    if len(days) <= MAX_DATES_NAMED:
        return ", ".join(map(str, days))
    ranges = date_ranges(days)
    named = ranges[:MAX_DATES_NAMED]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]} ({len(run)} days)" for run in named]
    if left_out := sum(map(len, ranges[MAX_DATES_NAMED:])):
        texts.append(f"and {left_out} more")
    return ", ".join(texts)


def summarise_dates(dates: Iterable[dt.date]) -> str:
    """The same in few words, however many: `2026-11-17 to 2026-11-24 (8 days)`, `5 of the days 2026-11-17 to ...`.

    Days with gaps are never told as a range.
    """
    days = sorted(set(dates))
    if len(days) <= MAX_DATES_SPELT_OUT:
        return ", ".join(map(str, days))
    whole = f"{days[0]} to {days[-1]}"
    return f"{whole} ({len(days)} days)" if len(date_ranges(days)) == 1 else f"{len(days)} of the days {whole}"
