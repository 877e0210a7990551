"""What the usage page is measured on: a month of usage, and a year of dates in the ledger.

    100,000 merchants x 10 metrics x 30 days    merchant_usage, in the order in which days arrive
    every hour of the newest three days         usage_hourly_history, of one merchant in ten
    a year of dates                             24 runs while a day lasts, eight when it is over; seals, dead letters,
                                                decisions, corrections, alerts

The days of the month are sealed by the engine, because the page hashes what it shows; older ones are made up.
"""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psycopg import ClientCursor, Connection

from merchant_usage import clock
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.sink import schema
from merchant_usage.sink.queries import query
from merchant_usage.steps.seal import seal_dates

METRICS: Final = 10
DAYS_OF_LEDGER: Final = 365
DAYS_OF_HISTORY: Final = 3
#: One merchant in so many has an hourly history.
WITH_HISTORY: Final = 10
#: Counters that went backwards wait on these days, counted from the last one.
UNDECIDED: Final = (3, 6)

SQL: Final = Path(__file__).parent / "sql"
# An index that is made once all is there takes a fifth of the time.
BEFORE: Final = """
    SET maintenance_work_mem = '1GB';
    SET work_mem = '512MB';
    SET synchronous_commit = off;
    ALTER TABLE merchant_usage DROP CONSTRAINT merchant_usage_pkey;
"""
AFTER: Final = "ALTER TABLE merchant_usage ADD PRIMARY KEY (merchant_id, date, metric_type)"


@dataclass(frozen=True)
class PageData:
    """How much of it."""

    merchants: int
    days: int
    last: dt.date

    @property
    def description(self) -> str:
        """What it is, for a heading."""
        return (
            f"{self.merchants:,} merchants x {METRICS} metrics x {self.days} days, a ledger of {DAYS_OF_LEDGER} dates, "
            f"the newest {DAYS_OF_HISTORY} days by the hour of one merchant in {WITH_HISTORY}"
        )

    def write(self, conn: Connection) -> None:
        """Fill an empty database."""
        schema.migrate(conn)
        conn.execute(BEFORE)
        dates = [self.last - dt.timedelta(days=n) for n in reversed(range(self.days))]
        for date in dates:
            self._execute(conn, "page_usage", date=date)
            _say(f"{date} written")
        conn.execute(AFTER)
        self._execute(
            conn,
            "page_ledger",
            days=self.days,
            last=self.last,
            now=clock.now(),
            ledger=DAYS_OF_LEDGER,
            undecided=list(UNDECIDED),
            history=DAYS_OF_HISTORY,
            with_history=WITH_HISTORY,
        )
        conn.execute("VACUUM (ANALYZE)")
        self._seal(conn, [date for date in dates if (self.last - date).days > 1])
        conn.execute("VACUUM (ANALYZE)")
        conn.execute("CHECKPOINT")

    def _execute(self, conn: Connection, name: str, **parameters: Any) -> None:
        """All statements of a file."""
        given = {"merchants": self.merchants, "metrics": METRICS, **parameters}
        statements = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        ClientCursor(conn).execute(statements.encode(), given)

    def _seal(self, conn: Connection, dates: list[dt.date]) -> None:
        for date in dates:
            row = conn.execute(query("select_day_totals"), {"dates": [date]}).fetchone()
            assert row is not None  # it was written above
            report = DateReport(date, settled=True, verdict=DateVerdict.VERIFIED, postgres_total=int(row[2]))
            seal_dates(conn, [report], "scheduled__made-up", self.last)
            _say(f"{date} sealed")


def _say(text: str) -> None:
    print(f"page: {text}", file=sys.stderr)
