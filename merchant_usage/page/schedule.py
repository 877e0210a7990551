"""When the next scheduled run begins, as far as the settings say it."""

from __future__ import annotations

import datetime as dt
from typing import Final

from merchant_usage.settings import Settings

_HOUR: Final = dt.timedelta(hours=1)
_DAY: Final = dt.timedelta(days=1)


def next_run(now: dt.datetime, settings: Settings) -> dt.datetime | None:
    """When the interval ends that `now` lies in, which is when its run begins; None if there is no schedule (yet).

    Intervals that divide an hour or a day follow the clock of `USAGE_TIMEZONE`; others are counted from the start.
    """
    interval = settings.interval
    if not settings.enabled or now < settings.start_date:
        return None
    begin = settings.start_date
    if interval < _HOUR and not _HOUR % interval:
        begin = now.astimezone(settings.timezone).replace(minute=0, second=0, microsecond=0)
    elif not interval % _HOUR and not _DAY % interval:
        # Hours of the clock, and of a day that may have 23 or 25 of them.
        return _next_on_the_clock(now.astimezone(settings.timezone), interval)
    passed = (now - begin) // interval + 1
    return (begin + passed * interval).astimezone(dt.UTC)


def _next_on_the_clock(local: dt.datetime, interval: dt.timedelta) -> dt.datetime:
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    hours = interval // _HOUR
    candidates = (midnight.replace(hour=hour) for hour in range(0, 24, hours))
    tomorrow = (midnight + _DAY).replace(fold=0)
    moments = [each.astimezone(dt.UTC) for each in (*candidates, tomorrow)]
    return min(each for each in moments if each > local.astimezone(dt.UTC))
