"""What is left for a run to do, by a real ledger."""

from __future__ import annotations

import datetime as dt
from itertools import count

import pytest

from merchant_usage import clock
from merchant_usage.model.run import Run
from merchant_usage.steps.due import due_dates
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, settings

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
WEEK = tuple(TODAY - n * DAY for n in range(7, 0, -1))
# The interval that ends now: its dates are today's alone.
LAST = (NOW - HOUR, NOW)
NUMBERS = count()


def due(
    usage: Usage,
    *dates: dt.date,
    interval: tuple[dt.datetime, dt.datetime] = LAST,
    now: dt.datetime = NOW,
    run_id: str | None = None,
) -> tuple[dt.date, ...]:
    run = Run(run_id or f"asked {next(NUMBERS)}", "scheduled", dates, now, interval=interval)
    return due_dates(usage.conn, run, settings())


def test_a_run_takes_its_dates_and_what_is_owed(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    assert due(usage, TODAY) == (*WEEK, TODAY), "nobody has read these"
    usage.aggregate(*WEEK)
    assert due(usage, TODAY) == (TODAY,)


def test_dates_that_are_sealed_are_left(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(*WEEK)
    assert due(usage, YESTERDAY, interval=(NOW - DAY, NOW - DAY + HOUR)) == ()
    assert due(usage, YESTERDAY, TODAY, interval=LAST) == (YESTERDAY, TODAY), "one that is not is work for all"


def test_an_interval_that_a_later_run_has_proven_is_left(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 6})
    usage.aggregate(*WEEK, TODAY)
    assert due(usage, TODAY, interval=LAST) == ()
    assert due(usage, TODAY, interval=(NOW, NOW + HOUR), now=NOW + HOUR) == (TODAY,)


def test_a_run_that_is_repeated_is_not_kept_from_its_work_by_itself(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(*WEEK, run_id="asked")
    assert due(usage, YESTERDAY, run_id="asked", interval=(NOW - DAY, NOW - DAY + HOUR)) == (YESTERDAY,)


@pytest.mark.parametrize("run_type", ["manual", "backfill", "cli"])
def test_a_run_that_somebody_asked_for_does_its_work(usage: Usage, run_type: str) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(*WEEK)
    assert due_dates(usage.conn, Run("asked", run_type, (YESTERDAY,), NOW), settings()) == (YESTERDAY,)


def test_a_wrong_clock_closes_no_day_for_others(usage: Usage) -> None:
    """A worker a day ahead takes today for settled; by the clock of the run that asks it is not."""
    usage.write({key("acme", TODAY): 6})
    usage.aggregate(*WEEK, TODAY, now=NOW + DAY + 3 * HOUR)
    assert usage.ledger("run 1")[TODAY] == ("verified", None)
    assert due(usage, TODAY, interval=(NOW, NOW + HOUR), now=NOW + HOUR) != ()


def test_rows_that_somebody_deleted_take_the_seal_away(usage: Usage, logged: list[str]) -> None:
    usage.write({key("acme"): 5, key("beta"): 7})
    usage.aggregate(*WEEK)
    yesterday = (NOW - DAY, NOW - DAY + HOUR)
    assert due(usage, YESTERDAY, interval=yesterday) == ()
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'beta'")
    assert due(usage, YESTERDAY, interval=yesterday) == (YESTERDAY,)
    assert any("was verified with 12, and PostgreSQL holds 5 now" in line for line in logged)


def test_a_date_that_waits_for_a_decision_is_owed_until_it_is_sealed(
    usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW + HOUR / 2)
    usage.write({key("acme"): 5})
    usage.aggregate(*WEEK)
    usage.write({key("acme"): 3})
    usage.aggregate(YESTERDAY)
    assert due(usage, TODAY) == (YESTERDAY, TODAY)
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "tester"), "usage", date=YESTERDAY)
    usage.aggregate(YESTERDAY, now=NOW + HOUR)
    assert due(usage, TODAY) == (TODAY,)


def test_dates_that_an_outage_took_are_all_taken_once(usage: Usage) -> None:
    """The pipeline ran until the 5th, and is back on the 24th: what lies before the retention is nobody's otherwise."""
    usage.write({key("acme", dt.date(2026, 11, 5)): 5})
    usage.aggregate(dt.date(2026, 11, 5), now=dt.datetime(2026, 11, 5, 12, tzinfo=dt.UTC))
    lost = tuple(dt.date(2026, 11, day) for day in range(5, 17))
    assert due(usage, TODAY) == (*lost, *WEEK, TODAY)
    usage.client.flushdb()
    proof = usage.aggregate(*lost, *WEEK)
    assert {report.date: report.verdict for report in proof.reports if report.date in lost} == dict.fromkeys(
        lost, "incomplete"
    )
    assert due(usage, TODAY) == (TODAY,)
