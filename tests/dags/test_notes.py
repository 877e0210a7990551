"""The note of a run: short, whatever the run was."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.model.dates import summarise_dates
from merchant_usage.model.report import Counts, DateReport, DateVerdict
from merchant_usage.orchestration.run_notes import SHOWN, describe_dates

# What Airflow's metadata holds of a note.
NOTE_CHARACTERS = 1000
OLDEST = dt.date(2026, 11, 3)


def report(day: int, verdict: DateVerdict, totals: tuple[int, int] = (0, 0), rows: int = 0) -> DateReport:
    counts = Counts(inserted=rows, updated=rows, dead_letters=rows)
    return DateReport(dt.date(2026, 11, day), True, verdict, counts, redis_total=totals[0], postgres_total=totals[1])


def test_one_line_the_worst_verdict_first_and_dates_of_one_verdict_together() -> None:
    verified = [report(day, DateVerdict.VERIFIED, (1000, 1000)) for day in (4, 5, 6, 8, 9, 10)]
    mismatch = report(7, DateVerdict.MISMATCH, (1523, 1500), 2)
    mismatch.keys = {"match": 3, "behind": 1}
    assert describe_dates([*verified[:3], report(3, DateVerdict.EMPTY)], OLDEST) == (
        "2026-11-04, 2026-11-05, 2026-11-06: verified, Redis 3,000, PostgreSQL 3,000; 2026-11-03: empty"
    )
    assert describe_dates([*verified, report(3, DateVerdict.EMPTY), mismatch], OLDEST).split("\n\n") == [
        "2026-11-07: mismatch; 6 of the days 2026-11-04 to 2026-11-10: verified; 2026-11-03: empty",
        "2026-11-07: mismatch, Redis 1,523, PostgreSQL 1,500: 1 behind (2 new, 2 raised, 2 dead letters)",
        "2026-11-04 to 2026-11-06 (3 days), 2026-11-08 to 2026-11-10 (3 days): verified, Redis 6,000, PostgreSQL 6,000",
        "2026-11-03: empty",
    ]


def test_a_day_that_is_over_is_not_told_in_one_sum_with_one_that_grows() -> None:
    over, live = (
        report(25, DateVerdict.VERIFIED, (599_529, 599_529)),
        report(26, DateVerdict.VERIFIED, (785_493, 782_799)),
    )
    live.settled, live.keys = False, {"match": 3, "growing": 69}
    assert describe_dates([over, live], OLDEST).split("\n\n") == [
        "2026-11-25: verified, 599,529 in both; 2026-11-26: verified, Redis 785,493, PostgreSQL 782,799: 69 growing",
        "2026-11-25: verified, Redis 599,529, PostgreSQL 599,529",
        "2026-11-26: verified, Redis 785,493, PostgreSQL 782,799: 69 growing",
    ]


def test_what_waits_for_a_decision_is_said_where_the_totals_are_equal() -> None:
    undecided = report(25, DateVerdict.MISMATCH, (600_629, 600_629))
    undecided.keys, undecided.undecided = {"match": 71, "regressed": 1}, 1
    told = "2026-11-25: mismatch, Redis 600,629, PostgreSQL 600,629: 1 regressed, and 1 counter waits for a decision"
    assert describe_dates([undecided], OLDEST) == told
    verified = [report(day, DateVerdict.VERIFIED, (10**9, 10**9)) for day in (1, 3)]
    assert describe_dates([undecided, *verified], OLDEST).split("\n\n")[0] == (
        "2026-11-25: mismatch, 600,629 in both: 1 regressed, and 1 counter waits for a decision; "
        "2026-11-01, 2026-11-03: verified"
    )


def test_a_run_of_some_merchants_is_not_told_as_the_whole_day() -> None:
    of_some = report(25, DateVerdict.VERIFIED, (3, 3))
    of_some.merchants = 2
    assert describe_dates([of_some], OLDEST) == "2026-11-25, 2 merchants: verified, Redis 3, PostgreSQL 3"


@pytest.mark.parametrize("days", [range(1, 31), range(1, 31, 2)], ids=["in a row", "with gaps"])
def test_many_dates_of_the_largest_numbers_fit(days: range) -> None:
    verdicts = [*DateVerdict] * 5
    told = describe_dates(
        [report(day, verdict, (2**63 - 1,) * 2, 10**9) for day, verdict in zip(days, verdicts, strict=False)], OLDEST
    )
    assert len(told) <= NOTE_CHARACTERS
    first = told.splitlines()[0]
    assert len(first) <= SHOWN, "the UI cuts what is longer"
    assert first.split(": ")[1].startswith("mismatch;")


def test_days_with_gaps_are_no_range() -> None:
    days = [dt.date(2026, 11, day) for day in (1, 2, 3, 5)]
    assert summarise_dates(days[:2]) == "2026-11-01, 2026-11-02"
    assert summarise_dates(days[:3]) == "2026-11-01 to 2026-11-03 (3 days)"
    assert summarise_dates(days) == "4 of the days 2026-11-01 to 2026-11-05"


def test_nobody_takes_what_expired_for_a_day_without_usage() -> None:
    told = describe_dates([report(2, DateVerdict.EMPTY)], OLDEST)
    assert told.startswith("2026-11-02: empty (older than what Redis keeps: its usage, if any, expired before it was")
