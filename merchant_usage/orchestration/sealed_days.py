"""The partitions of the asset `merchant_usage_day`: one for each date that is sealed, once for each time that it is.

What Airflow was told already Airflow itself is asked. A run that sealed a date and then failed, or was killed before
its event was sent, has told nobody: the next one that ends well does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.log import Log
from merchant_usage.model.dates import end_of, format_dates, local_date
from merchant_usage.orchestration.compat import events_since
from merchant_usage.orchestration.sdk import Asset
from merchant_usage.settings import Settings
from merchant_usage.steps.due import ONE_DAY
from merchant_usage.steps.sealed import changed_dates, sealed_totals

log = Log(__name__)

#: What an event holds: of each date that was told with it the sum that was verified, by date.
TOTALS: Final = "totals"


class SealedDays:
    """The dates of a run, and all of this month and the last: which were sealed before it, and which are now."""

    def __init__(self, conn: Connection, dates: Iterable[dt.date], settings: Settings) -> None:
        """Look before the run comes to its verdict."""
        self._conn, self._settings = conn, settings
        self._dates = sorted({*dates, *_recent(local_date(clock.now(), settings))})
        self._before = self._sealed()

    def _sealed(self) -> dict[dt.date, int]:
        return sealed_totals(self._conn, self._dates, clock.now(), self._settings)

    def untold(self, asset: Asset) -> dict[dt.date, int]:
        """What Airflow was not told: dates that were sealed just now, and those of which it knows another sum, or none.

        Without those whose rows somebody has changed since: they are not what was verified.
        """
        sealed = self._sealed()
        told = _told(asset, end_of(min(sealed), self._settings)) if sealed else {}
        untold = {
            date: total
            for date, total in sealed.items()
            if date not in self._before or told.get(date.isoformat()) != total
        }
        for date in changed_dates(self._conn, untold) if untold else ():
            log.warning(f"{date} does not hold what it was verified with: no event is sent for it", date=str(date))
            del untold[date]
        return untold


def _recent(today: dt.date) -> list[dt.date]:
    """From the first of last month on to yesterday."""
    first = (today.replace(day=1) - ONE_DAY).replace(day=1)
    return [first + days * ONE_DAY for days in range((today - first).days)]


def _told(asset: Asset, since: dt.datetime) -> dict[str, Any]:
    """The sum with which each date was last told. No date is before it is over."""
    found: dict[str, Any] = {}
    for event in events_since(asset, since):
        totals = (event.extra or {}).get(TOTALS)
        if event.partition_key and isinstance(totals, dict):
            found[event.partition_key] = totals.get(event.partition_key)
    return found


def tell_days(outlet_event: Any, sealed: Mapping[dt.date, int]) -> None:
    """Let Airflow send an event for each of the dates when the task ends well."""
    totals = {date.isoformat(): total for date, total in sealed.items()}
    outlet_event.extra[TOTALS] = totals
    outlet_event.add_partitions(list(totals))
    log.info(f"Sealed, and told to whoever waits for days: {format_dates(sealed)}", dates=len(totals))
