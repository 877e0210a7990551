"""When runs happen: real, gapless data intervals of any length."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable

from merchant_usage.settings import Settings

if TYPE_CHECKING:
    from airflow.timetables.base import Timetable


def timetable(settings: Settings) -> Timetable | None:
    """The schedule that the settings ask for; None (manual runs only) if they ask for none.

    Cron aligns intervals to the clock and to the days of `USAGE_TIMEZONE`, which a plain `@hourly` would not do
    on Airflow 3: its intervals have no width. What cron cannot say counts from the start date.
    """
    if not settings.enabled:
        return None
    cron = _cron(settings.interval)
    if cron is None:
        return DeltaDataIntervalTimetable(settings.interval)
    return CronDataIntervalTimetable(cron, timezone=settings.timezone.key)


def _cron(interval: dt.timedelta) -> str | None:
    """The cron expression that fires once an interval, if the interval divides an hour or a day."""
    minutes = int(interval.total_seconds()) // 60
    if minutes < 60 and 60 % minutes == 0:
        return f"*/{minutes} * * * *"
    hours, rest = divmod(minutes, 60)
    if rest or 24 % hours:
        return None
    return {1: "0 * * * *", 24: "0 0 * * *"}.get(hours, f"0 */{hours} * * *")
