"""The note of a run: short, whatever the run was."""

from __future__ import annotations

import datetime as dt
from typing import Any

from include.orchestration.notes import DATES_SHOWN, describe_dates

# What Airflow's metadata holds of a note.
NOTE_CHARACTERS = 1000


def row(day: int, verdict: str | None = "verified", total: int = 0, rows: int = 0) -> dict[str, Any]:
    totals = dict.fromkeys(("redis_total", "postgres_total"), total)
    counts = dict.fromkeys(("rows_inserted", "rows_updated", "dead_letters"), rows)
    return {"usage_date": dt.date(2026, 11, day), "verdict": verdict, **totals, **counts}


def test_a_line_a_date() -> None:
    counts = {"redis_total": 1523, "postgres_total": 1500, "rows_inserted": 2, "rows_updated": 1, "dead_letters": 4}
    assert describe_dates([{**row(3), **counts}, row(4, "empty")]) == (
        "2026-11-03 verified: Redis 1,523, PostgreSQL 1,500 (2 new, 1 raised, 4 dead letters)\n\n"
        "2026-11-04 empty: Redis 0, PostgreSQL 0 (0 new, 0 raised, 0 dead letters)"
    )


def test_a_date_without_a_verdict_is_not_told() -> None:
    assert describe_dates([row(3, None)]) == ""


def test_many_dates_of_the_largest_numbers_fit() -> None:
    told = describe_dates([row(day, "source_expired", 2**63 - 1, 10**9) for day in range(1, 31)])
    assert len(told) <= NOTE_CHARACTERS
    assert told.endswith(f"and {30 - DATES_SHOWN} more dates")
    assert told.count("2026-11") == DATES_SHOWN
