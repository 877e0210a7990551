"""Whether the hourly history of counters leads to what is stored. The sum of its view does, by the way it is made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.dates import Scope
from merchant_usage.sink import curves

log = Log(__name__)

# Counters of a date that the log names.
MAX_NAMED: Final = 5


def broken_curves(conn: Connection, scopes: Iterable[Scope]) -> dict[dt.date, int]:
    """Of how many counters of each date somebody else has changed the history, or the row; said in the log.

    It moves no verdict: that is about Redis and what is stored. Looked for of whole dates that are over: it reads all
    of their history, and of a live date that is looked at again the next day.
    """
    dates = [scope.date for scope in scopes if scope.settled and scope.merchant_ids is None]
    found = curves.broken(conn, dates, MAX_NAMED) if dates else {}
    for date, of_date in found.items():
        named = "; ".join(map(str, of_date.first))
        more = of_date.number - len(of_date.first)
        others = f"; and {more:,} more" if more else ""
        log.warning(
            f"The hourly history of {of_date.number:,} counter(s) of {date} does not lead to what is stored: someone "
            f"else has changed it, or their rows: {named}{others}",
            date=str(date),
            broken_curves=of_date.number,
        )
    return {date: of_date.number for date, of_date in found.items()}
