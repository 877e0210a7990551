"""Which dates stand sealed, and with what."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

from psycopg import Connection

from merchant_usage.model.dates import is_settled
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query
from merchant_usage.steps.due import ONE_DAY


def sealed_totals(
    conn: Connection, dates: Collection[dt.date], now: dt.datetime, settings: Settings
) -> dict[dt.date, int]:
    """Those of the dates that are sealed, by the clock and the rules of now too, and what each was verified with."""
    if not dates:
        return {}
    rules = ledger.key_rules(conn, min(dates) - ONE_DAY)
    return {
        date: state.verified_total
        for date, state in sorted(ledger.date_states(conn, dates).items())
        if state.is_sealed and state.verified_total is not None and is_settled(date, now, settings, rules)
    }


def changed_dates(conn: Connection, verified: Mapping[dt.date, int]) -> dict[dt.date, int]:
    """Those of the dates whose rows do not add up to what they were verified with, and what they do add up to."""
    sums = conn.execute(query("select_day_totals"), {"dates": list(verified)})
    held = {date: int(total) for date, _, total, *_ in sums}
    return {date: held.get(date, 0) for date, total in verified.items() if held.get(date, 0) != total}
