"""Which dates a run handles. Pure: the data interval, the settings and one reading of the clock decide."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from merchant_usage.errors import SettingsError
from merchant_usage.settings import Settings

# A year. Counters live for days: more is a slip of the pen in the year, and each date costs a row of the ledger.
MAX_DATES: Final = 366


@dataclass(frozen=True, slots=True)
class Scope:
    """One date of a run, and of whom.

    `settled`: the day was over, with its settle hours, when the run began; then PostgreSQL must equal Redis.
    `merchant_ids`: None for all merchants.
    """

    date: dt.date
    settled: bool
    merchant_ids: tuple[str, ...] | None = None

    def to_xcom(self) -> dict[str, Any]:
        """Plain JSON."""
        merchants = None if self.merchant_ids is None else list(self.merchant_ids)
        return {"date": self.date.isoformat(), "settled": self.settled, "merchant_ids": merchants}

    @classmethod
    def from_xcom(cls, data: dict[str, Any]) -> Scope:
        """The scope that `to_xcom` wrote down."""
        merchants = None if data["merchant_ids"] is None else tuple(data["merchant_ids"])
        return cls(dt.date.fromisoformat(data["date"]), data["settled"], merchants)


def local_date(moment: dt.datetime, settings: Settings) -> dt.date:
    """The usage date of a moment: its day in `USAGE_TIMEZONE`."""
    return moment.astimezone(settings.timezone).date()


def end_of(date: dt.date, settings: Settings) -> dt.datetime:
    """The midnight after a day, in `USAGE_TIMEZONE`."""
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), settings.timezone)


def is_settled(date: dt.date, now: dt.datetime, settings: Settings) -> bool:
    """Whether a day is over and its settle hours have passed, so that its counters stand still."""
    return now >= end_of(date, settings) + dt.timedelta(hours=settings.settle_hours)


def oldest_kept(today: dt.date, settings: Settings) -> dt.date:
    """The oldest date whose keys are still within the retention."""
    return today - dt.timedelta(days=settings.retention_days)


def dates_of_interval(start: dt.datetime, now: dt.datetime, settings: Settings) -> list[dt.date]:
    """The dates of the run for the data interval that begins at `start`.

    The date of `start`; during the first settle hours of a day also the day before; the first run of a day
    sweeps every date still within the retention.
    """
    date = local_date(start, settings)
    midnight = dt.datetime.combine(date, dt.time(), settings.timezone)
    dates = {date}
    if start - midnight < dt.timedelta(hours=settings.settle_hours):
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
    told_first, told_last = f"{first_name}={first}", f"{last_name}={last}"
    if last < first:
        raise SettingsError(f"{told_last} lies before {told_first}; the range takes both days, in order.")
    if last > today:
        raise SettingsError(f"{told_last} is in the future; the last day there is to aggregate is {today}.")
    count = (last - first).days + 1
    if count > MAX_DATES:
        raise SettingsError(f"{told_first} to {told_last} is {count:,} days; a run takes {MAX_DATES} at most.")
    return [first + dt.timedelta(days=days) for days in range(count)]
