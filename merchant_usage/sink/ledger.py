"""The ledger `usage_run`: has this date been aggregated, when, by whom, and does it match?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage import clock
from merchant_usage.driver_errors import explain
from merchant_usage.model.dates import Scope, end_of
from merchant_usage.model.report import DateReport
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query


class Verified(NamedTuple):
    """A run that verified a date."""

    run_id: str
    date: dt.date
    started_at: dt.datetime
    finished_at: dt.datetime

    def verified_until(self, settings: Settings) -> dt.datetime:
        """The moment up to which usage of the date is verified: the run's start, at most the day's end."""
        return min(self.started_at, end_of(self.date, settings)).astimezone(dt.UTC)


def start(conn: Connection, run_id: str, run_type: str, scopes: Iterable[Scope], now: dt.datetime) -> None:
    """Enter a run and its dates; a run that is repeated starts its rows anew."""
    with conn.transaction():
        for scope in sorted(scopes, key=lambda scope: scope.date):
            conn.execute(
                query("start_run"),
                {
                    "run_id": run_id,
                    "usage_date": scope.date,
                    "run_type": run_type,
                    "merchant_ids": None if scope.merchant_ids is None else list(scope.merchant_ids),
                    "settled": scope.settled,
                    "started_at": now,
                },
            )


def note_scan(conn: Connection, run_id: str, date: dt.date, *, keys: int, merchants: int, dead_letters: int) -> None:
    """Write down what the scan found of a date."""
    conn.execute(
        query("note_scan"),
        {
            "run_id": run_id,
            "usage_date": date,
            "keys_scanned": keys,
            "merchants": merchants,
            "dead_letters": dead_letters,
        },
    )


def finish(conn: Connection, run_id: str, reports: Sequence[DateReport], now: dt.datetime) -> None:
    """Write down how a run ended, date by date."""
    with conn.transaction():
        for report in sorted(reports, key=lambda report: report.date):
            conn.execute(
                query("finish_run"),
                {
                    "run_id": run_id,
                    "usage_date": report.date,
                    "finished_at": now,
                    "rows_inserted": report.counts.inserted,
                    "rows_updated": report.counts.updated,
                    "rows_unchanged": report.counts.unchanged,
                    "dead_letters": report.counts.dead_letters,
                    "regressed": report.counts.regressed,
                    "redis_total": report.redis_total,
                    "postgres_total": report.postgres_total,
                    "verdict": str(report.verdict),
                    "error": report.error,
                },
            )


def fail(conn: Connection, run_id: str, error: str, now: dt.datetime) -> None:
    """The run came to no verdict: say why on all of its rows that have none."""
    conn.execute(query("fail_run"), {"run_id": run_id, "error": error, "finished_at": now})


def sealed_dates(conn: Connection, run_id: str, dates: Iterable[dt.date]) -> set[dt.date]:
    """Those of the dates that are over, settled and verified by another run."""
    rows = conn.execute(query("select_sealed_dates"), {"dates": list(dates), "run_id": run_id})
    return {row[0] for row in rows}


def is_proven(conn: Connection, run_id: str) -> bool:
    """Whether every date of this run has a verdict that is not a mismatch."""
    row = conn.execute(query("select_run_proven"), {"run_id": run_id}).fetchone()
    return bool(row and row[0])


def runs(conn: Connection, from_date: dt.date, to_date: dt.date) -> list[dict[str, Any]]:
    """The ledger's rows of some dates, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_runs"), {"from_date": from_date, "to_date": to_date}).fetchall()


def newest_runs(conn: Connection, from_date: dt.date, to_date: dt.date) -> list[dict[str, Any]]:
    """The newest row of each of some dates, newest date first, with when the date was last verified.

    If that is of some merchants only, the newest over all of them follows, if there is one.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_newest_runs"), {"from_date": from_date, "to_date": to_date}).fetchall()


def run(conn: Connection, run_id: str) -> list[dict[str, Any]]:
    """The rows of one run, by date."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_run"), {"run_id": run_id}).fetchall()


def newest_verified(conn: Connection) -> Verified | None:
    """Of the runs over all merchants with nothing but good verdicts, the last one that verified the newest date."""
    row = conn.execute(query("select_newest_verified")).fetchone()
    return Verified(*row) if row else None


@contextmanager
def _failure_noted(conn: Connection, run_id: str) -> Iterator[None]:
    """Write an error into the ledger on its way out."""
    try:
        yield
    except Exception as error:
        with suppress(psycopg.Error):  # PostgreSQL itself may be what failed; the first error is the one to tell
            fail(conn, run_id, explain(error), clock.now())
        raise
