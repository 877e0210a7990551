"""Weeks and months: what their days are together, and closed once all of these are sealed."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any, Final, NamedTuple

import pytest
from psycopg import Connection, sql

from merchant_usage.sink import ledger
from tests.support import NOW, Usage, key

DAY = dt.timedelta(days=1)
MONDAY = dt.date(2026, 11, 16)
#: Each view, and how it calls its windows.
WINDOWS: Final = [("merchant_usage_weekly", "week"), ("merchant_usage_monthly", "month")]


def seal(conn: Connection, date: dt.date, verdict: str = "verified", run_id: str = "a run", hour: int = 3) -> None:
    started_at = dt.datetime.combine(date + DAY, dt.time(hour), dt.UTC)
    conn.execute(
        "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at, verdict, complete, postgres_total)"
        " VALUES (%s, %s, 'scheduled', true, %s, %s, true, 1)",
        [run_id, date, started_at, verdict],
    )


def fill(conn: Connection, first: dt.date, days: int, merchants: int = 2, value: int = 2**62) -> None:
    conn.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)"
        " SELECT 'm' || m, %s::date + d, 'queries', %s FROM generate_series(0, %s - 1) d, generate_series(1, %s) m",
        [first, value, days, merchants],
    )


@pytest.mark.parametrize(("view", "name"), WINDOWS)
def test_windows_are_what_their_days_are(database: Connection, view: str, name: str) -> None:
    """Beyond what a bigint holds, over the end of a year, with weeks that are in two months."""
    fill(database, dt.date(2026, 11, 25), 60)
    names = {"view": sql.Identifier(view), "name": sql.Identifier(name)}
    windows = database.execute(
        sql.SQL("SELECT {name}, sum(value), min(days) FROM {view} GROUP BY 1 ORDER BY 1").format(**names)
    ).fetchall()
    days = database.execute(
        "SELECT date_trunc(%s, date::timestamp)::date AS start, sum(metric_value) FROM merchant_usage"
        " GROUP BY start ORDER BY start",
        [name],
    ).fetchall()
    assert [(start, value) for start, value, _ in windows] == days
    expected = [7] * 9 if name == "week" else [30, 31, 31]
    assert [number for *_, number in windows] == expected
    if name == "week":
        assert {start.isoweekday() for start, *_ in windows} == {1}


def test_a_week_is_closed_once_all_of_its_days_are_sealed(database: Connection) -> None:
    """Also days on which this merchant used nothing."""
    fill(database, MONDAY + DAY, 2, merchants=1)

    def week() -> tuple[object, ...] | None:
        found: tuple[object, ...] | None = database.execute(
            "SELECT days, days_sealed, closed FROM merchant_usage_weekly WHERE week = %s", [MONDAY]
        ).fetchone()
        return found

    assert week() == (7, 0, False)
    for days in range(6):
        seal(database, MONDAY + days * DAY)
    assert week() == (7, 6, False)
    seal(database, MONDAY + 6 * DAY)
    assert week() == (7, 7, True)
    seal(database, MONDAY, "mismatch", "later", hour=5)
    assert week() == (7, 6, False)


def test_a_month_is_closed_once_its_last_day_is_sealed(database: Connection) -> None:
    first = dt.date(2026, 2, 1)
    fill(database, first, 1, merchants=1, value=5)
    for days in range(27):
        seal(database, first + days * DAY)
    closed = "SELECT value, days, days_sealed, closed FROM merchant_usage_monthly WHERE month = '2026-02-01'"
    assert database.execute(closed).fetchone() == (5, 28, 27, False)
    seal(database, first + 27 * DAY)
    assert database.execute(closed).fetchone() == (5, 28, 28, True)


def test_sealed_dates_are_those_of_the_ledger(database: Connection) -> None:
    """Whatever verdicts follow each other, and whatever people decide in between."""
    verdicts = ("verified", "mismatch", "source_expired", "incomplete", "empty")
    date = MONDAY
    for first in verdicts:
        for second in verdicts:
            seal(database, date, first, "first", hour=3)
            seal(database, date, second, "second", hour=5)
            date += DAY
    for index in range(0, (date - MONDAY).days, 3):
        day = MONDAY + index * DAY
        decided_at = dt.datetime.combine(day + DAY, dt.time(4), dt.UTC)
        database.execute(
            "INSERT INTO usage_decision (usage_date, decision, decided_by, decided_at) VALUES (%s, 'keep', 'me', %s)",
            [day, decided_at],
        )
    database.execute(
        "INSERT INTO usage_dead_letter (redis_key, reason, detail, usage_date)"
        " VALUES ('k', 'counter_regressed', '', %s)",
        [MONDAY],
    )
    dates = [MONDAY + days * DAY for days in range((date - MONDAY).days)]
    found = {day for (day,) in database.execute("SELECT usage_date FROM usage_sealed_date")}
    assert found == ledger.sealed_dates(database, dates)
    assert 0 < len(found) < len(dates)


def test_a_run_closes_nothing_by_itself(usage: Usage) -> None:
    usage.write({key("acme", NOW.date() - DAY): 5})
    usage.aggregate(NOW.date() - DAY)
    row = usage.conn.execute("SELECT value, days_sealed, closed FROM merchant_usage_monthly").fetchone()
    assert row == (5, 1, False)


# How they are found.


class Work(NamedTuple):
    """The plan as a text, and how many rows of merchant_usage and its history were looked at."""

    plan: str
    looked_at: int


def work(conn: Connection, statement: sql.Composed) -> Work:
    row = conn.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + statement).fetchone()
    assert row is not None
    return Work(json.dumps(row[0]), _looked_at(row[0][0]["Plan"]))


def _looked_at(node: dict[str, Any]) -> int:
    rows = sum(map(_looked_at, node.get("Plans", ())))
    if re.match("merchant_usage|usage_hourly", node.get("Relation Name", "")):
        in_vain = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        rows += int(node["Actual Rows"] + in_vain) * int(node["Actual Loops"])
    return rows


@pytest.fixture
def half_a_year(database: Connection) -> Connection:
    """Of a thousand merchants, with a history of one day."""
    first = dt.date(2026, 7, 1)
    fill(database, first, 150, merchants=1000, value=1)
    for days in range(150):
        seal(database, first + days * DAY)
    database.execute(
        "INSERT INTO usage_hourly_history (merchant_id, date, metric_type, held_since, metric_value, correction)"
        " SELECT 'm' || m, '2026-11-20', 'queries', '2026-11-20'::timestamptz + h * interval '1 h', 0, false"
        " FROM generate_series(1, 1000) m, generate_series(0, 9) h"
    )
    database.execute("VACUUM ANALYZE")
    return database


@pytest.mark.parametrize(("view", "name"), WINDOWS)
def test_windows_are_found_without_reading_all(half_a_year: Connection, view: str, name: str) -> None:
    """Those of a merchant, and a window of all merchants."""
    names = {"view": sql.Identifier(view), "name": sql.Identifier(name)}
    assert work(half_a_year, sql.SQL("SELECT * FROM {view} WHERE merchant_id = 'm7'").format(**names)).looked_at == 150
    start, longest = ("2026-10-05", 7) if name == "week" else ("2026-10-01", 31)
    of_all = work(half_a_year, sql.SQL("SELECT * FROM {view} WHERE {name} = {start}").format(**names, start=start))
    assert f'"merchant_usage_{name}"' in of_all.plan
    assert of_all.looked_at < 1000 * longest * 1.6


def test_a_curve_is_found_without_reading_all(half_a_year: Connection) -> None:
    found = work(
        half_a_year,
        sql.SQL("SELECT * FROM merchant_usage_hourly WHERE merchant_id = 'm7' AND date = {day}").format(
            day="2026-11-20"
        ),
    )
    assert found.looked_at == 1 + 10
