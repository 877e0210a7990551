"""The note of a run: short, whatever the run was."""

from __future__ import annotations

import datetime as dt

from merchant_usage.model.report import Counts, DateReport, DateVerdict
from merchant_usage.orchestration.run_notes import DATES_SHOWN, describe_dates

# What Airflow's metadata holds of a note.
NOTE_CHARACTERS = 1000
OLDEST = dt.date(2026, 11, 3)


def report(day: int, verdict: DateVerdict, totals: tuple[int, int] = (0, 0), rows: int = 0) -> DateReport:
    counts = Counts(inserted=rows, updated=rows, dead_letters=rows)
    return DateReport(dt.date(2026, 11, day), True, verdict, counts, redis_total=totals[0], postgres_total=totals[1])


def test_a_line_a_date() -> None:
    assert describe_dates([report(3, DateVerdict.VERIFIED, (1523, 1500), 2), report(4, DateVerdict.EMPTY)], OLDEST) == (
        "2026-11-03 verified: Redis 1,523, PostgreSQL 1,500 (2 new, 2 raised, 2 dead letters)\n\n"
        "2026-11-04 empty: Redis 0, PostgreSQL 0 (0 new, 0 raised, 0 dead letters)"
    )


def test_many_dates_of_the_largest_numbers_fit() -> None:
    told = describe_dates(
        [report(day, DateVerdict.SOURCE_EXPIRED, (2**63 - 1,) * 2, 10**9) for day in range(1, 31)], OLDEST
    )
    assert len(told) <= NOTE_CHARACTERS
    assert told.endswith(f"and {30 - DATES_SHOWN} more dates")
    assert told.count("2026-11") == DATES_SHOWN


def test_nobody_takes_what_expired_for_a_day_without_usage() -> None:
    told = describe_dates([report(2, DateVerdict.EMPTY)] * DATES_SHOWN, OLDEST)
    assert told.startswith("2026-11-02 empty (older than what Redis keeps: its usage, if any, expired before it was")
    assert len(told) <= NOTE_CHARACTERS
