"""How counters grew, kept where they change: what is seen between two readings adds up to what is stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport
from merchant_usage.settings import OnRegression
from merchant_usage.sink import schema
from merchant_usage.steps.prune import prune_history
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import NOW, TODAY, Connect, Usage, key, raw, settings

HOUR = dt.timedelta(hours=1)
ACME = key("acme", TODAY)


class Part(NamedTuple):
    """A row of merchant_usage_hourly."""

    from_at: dt.datetime
    to_at: dt.datetime
    value: int
    correction: bool


def curve(usage: Usage, counter: CounterKey = ACME) -> list[Part]:
    rows = usage.conn.execute(
        "SELECT from_at, to_at, metric_value, correction FROM merchant_usage_hourly"
        " WHERE merchant_id = %s AND date = %s AND metric_type = %s ORDER BY to_at",
        counter,
    )
    return [Part(*row) for row in rows]


def values(parts: Sequence[Part]) -> list[int | str]:
    """The numbers, a correction with a mark."""
    return [f"{part.value} corrected" if part.correction else part.value for part in parts]


def assert_adds_up(usage: Usage) -> None:
    """Of every counter."""
    found = usage.conn.execute(
        "SELECT merchant_id, date, metric_type, m.metric_value, sum(h.metric_value)"
        " FROM merchant_usage AS m LEFT JOIN merchant_usage_hourly AS h USING (merchant_id, date, metric_type)"
        " GROUP BY 1, 2, 3, 4 HAVING m.metric_value IS DISTINCT FROM sum(h.metric_value)"
    ).fetchall()
    assert found == []


def test_each_reading_of_a_live_day_is_a_part(usage: Usage) -> None:
    for value in (5, 7, 7, 12):
        usage.write({ACME: value, key("still", TODAY): 1})
        usage.aggregate(TODAY)
    parts = curve(usage)
    assert values(parts) == [5, 2, 5]
    assert parts[0].from_at == dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    assert [part.from_at for part in parts[1:]] == [part.to_at for part in parts[:-1]]
    assert values(curve(usage, key("still", TODAY))) == [1]
    assert_adds_up(usage)


def test_first_load_writes_nothing(usage: Usage) -> None:
    usage.write({key(f"m{number}", TODAY): number for number in range(50)})
    usage.aggregate(TODAY)
    assert usage.conn.execute("SELECT count(*) FROM usage_hourly_history").fetchone() == (0,)
    assert values(curve(usage, key("m0", TODAY))) == [0], "a counter that never counted anything has a row, too"
    assert_adds_up(usage)


def test_a_correction_is_a_part_of_its_own(usage: Usage) -> None:
    for value in (5, 9, 3):
        usage.write({ACME: value})
        usage.aggregate(TODAY)
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(ACME))
    usage.write({ACME: 4})
    usage.aggregate(TODAY)
    assert values(curve(usage)) == [5, 4, "-6 corrected", 1]
    assert_adds_up(usage)


def test_what_is_carried_is_marked(usage: Usage) -> None:
    for value in (5, 3):
        usage.write({ACME: value})
        usage.aggregate(TODAY, on_regression=OnRegression.CARRY)
    usage.write({ACME: 10})
    usage.aggregate(TODAY)
    assert usage.rows() == {ACME: 15}
    assert values(curve(usage)) == [5, "3 corrected", 7]
    assert_adds_up(usage)


def test_what_was_right_is_no_correction(usage: Usage) -> None:
    for value in (5, 3):
        usage.write({ACME: value})
        usage.aggregate(TODAY)
    before = usage.row_versions()[ACME][-1]
    decide(usage.client, usage.conn, Ruling(Decision.KEEP, "a person"), "usage", key=raw(ACME))
    assert values(curve(usage)) == [5]
    assert usage.row_versions()[ACME][-1] == before, "updated_at says when the value changed"
    usage.write({ACME: 8})
    usage.aggregate(TODAY)
    assert values(curve(usage)) == [5, 3]
    assert_adds_up(usage)


def test_without_history_only_corrections_are_kept(usage: Usage) -> None:
    for value in (5, 7, 9, 3):
        usage.write({ACME: value})
        usage.aggregate(TODAY, hourly_history=False)
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(ACME))
    assert values(curve(usage)) == [9, "-6 corrected"]
    assert_adds_up(usage)


def test_points_keep_their_order_whichever_run_began_first(usage: Usage) -> None:
    """A run that waited for a row has an older now() than the one that it waited for."""
    for value in (5, 7):
        usage.write({ACME: value})
        usage.aggregate(TODAY)
    usage.conn.execute("UPDATE merchant_usage SET updated_at = now() + interval '1 minute'")
    for value in (8, 11):
        usage.write({ACME: value})
        usage.aggregate(TODAY)
    parts = curve(usage)
    assert values(parts) == [5, 2, 1, 3]
    assert [part.to_at for part in parts] == sorted({part.to_at for part in parts})
    assert_adds_up(usage)


def test_history_of_a_row_that_is_gone_is_not_shown(usage: Usage) -> None:
    for value in (5, 7):
        usage.write({ACME: value})
        usage.aggregate(TODAY)
    usage.conn.execute("DELETE FROM merchant_usage")
    assert curve(usage) == []
    usage.aggregate(TODAY)
    assert values(curve(usage)) == [5, 2]
    assert_adds_up(usage)


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        ("Europe/Berlin", dt.datetime(2026, 11, 23, 23, tzinfo=dt.UTC)),
        ("America/New_York", dt.datetime(2026, 11, 24, 5, tzinfo=dt.UTC)),
        ("No/Such_Zone", dt.datetime(2026, 11, 24, tzinfo=dt.UTC)),
        (None, dt.datetime(2026, 11, 24, tzinfo=dt.UTC)),
    ],
)
def test_a_day_begins_at_its_midnight(usage: Usage, zone: str | None, midnight: dt.datetime) -> None:
    usage.write({ACME: 5})
    usage.aggregate(TODAY, now=NOW)
    usage.conn.execute("UPDATE usage_run SET timezone = %s", [zone])
    assert curve(usage)[0].from_at == midnight


# Weeks, and the days that none has room for.

REST = "usage_hourly_history_rest"


def weeks(conn: Connection) -> list[str]:
    """The partitions by name, but for the rest."""
    rows = conn.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
        " WHERE inhparent = 'usage_hourly_history'::regclass AND relname <> %s ORDER BY 1",
        [REST],
    )
    return [name for (name,) in rows]


def add_point(conn: Connection, date: dt.date) -> None:
    conn.execute(
        "INSERT INTO usage_hourly_history (merchant_id, date, metric_type, held_since, metric_value, correction)"
        " VALUES ('acme', %s, 'queries', %s, 1, false)",
        [date, date],
    )


def place_of(conn: Connection, date: dt.date) -> str | None:
    row = conn.execute("SELECT tableoid::regclass::text FROM usage_hourly_history WHERE date = %s", [date]).fetchone()
    return str(row[0]) if row else None


def monday(date: dt.date) -> dt.date:
    return date - dt.timedelta(days=date.weekday())


def test_weeks_are_made_ahead_of_time(database: Connection) -> None:
    today = clock.now().date()
    before = weeks(database)
    for days in (-35, 0, 14):
        assert f"usage_hourly_history_{monday(today + dt.timedelta(days=days)):%Y%m%d}" in before
    (soonest, *_, last) = before
    database.execute(f"DROP TABLE {soonest}, {last}".encode())
    assert prune_history(database, clock.now(), settings()) == 0
    assert weeks(database) == before


def test_what_no_week_had_room_for_moves_into_its_week(database: Connection) -> None:
    today = clock.now().date()
    database.execute(f"DROP TABLE usage_hourly_history_{monday(today):%Y%m%d}".encode())
    for date in (today, today + dt.timedelta(days=400)):
        add_point(database, date)
        assert place_of(database, date) == REST
    prune_history(database, clock.now(), settings())
    assert place_of(database, today) == f"usage_hourly_history_{monday(today):%Y%m%d}"
    assert place_of(database, today + dt.timedelta(days=400)) == REST


def test_old_weeks_are_dropped_whole(database: Connection) -> None:
    today = clock.now().date()
    edge = today - dt.timedelta(days=90)
    for start in (monday(edge) - dt.timedelta(days=7), monday(edge)):
        database.execute(
            f"CREATE TABLE usage_hourly_history_{start:%Y%m%d} PARTITION OF usage_hourly_history"
            f" FOR VALUES FROM ('{start}') TO ('{start + dt.timedelta(days=7)}')".encode()
        )
        add_point(database, start)
    for days in (8, 300):
        add_point(database, edge - dt.timedelta(days=days))
    before = weeks(database)
    assert prune_history(database, clock.now(), settings(), dry_run=True) == 1
    assert weeks(database) == before
    assert prune_history(database, clock.now(), settings()) == 1
    assert weeks(database) == before[1:], "the week of the oldest day that is kept stays whole"
    assert place_of(database, monday(edge)) == before[1]
    assert place_of(database, edge - dt.timedelta(days=300)) is None
    assert prune_history(database, clock.now(), settings()) == 0


def test_nobody_can_take_away_the_last_week(database: Connection) -> None:
    before = weeks(database)
    today = clock.now().date()
    add_point(database, today - dt.timedelta(days=7))
    prune_history(database, clock.now() + dt.timedelta(days=4000), settings())
    assert place_of(database, today - dt.timedelta(days=7)) is not None
    assert set(weeks(database)) < set(before)


def test_a_date_without_a_week_is_billed_and_kept(usage: Usage) -> None:
    old = key("acme", TODAY - dt.timedelta(days=200))
    for value in (5, 7):
        usage.write({old: value})
        usage.aggregate(old.date)
    assert usage.rows() == {old: 7}
    assert place_of(usage.conn, old.date) == REST
    assert values(curve(usage, old)) == [5, 2]


def test_weeks_are_dropped_though_others_write(usage: Usage, connect: Connect) -> None:
    """They are not waited for long, and wait for nobody: the next day drops what is left."""
    edge = monday(clock.now().date() - dt.timedelta(days=120))
    usage.conn.execute(
        f"CREATE TABLE usage_hourly_history_{edge:%Y%m%d} PARTITION OF usage_hourly_history"
        f" FOR VALUES FROM ('{edge}') TO ('{edge + dt.timedelta(days=7)}')".encode()
    )
    other = connect()
    with other.transaction():
        add_point(other, TODAY)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            prune_history(usage.conn, clock.now(), settings())
    assert prune_history(usage.conn, clock.now(), settings()) == 1


def test_a_view_follows_the_table_that_takes_the_place_of_the_old_one(usage: Usage) -> None:
    usage.write({ACME: 5})
    usage.aggregate(TODAY)
    usage.conn.execute("ALTER TABLE merchant_usage RENAME TO old; CREATE TABLE merchant_usage (LIKE old INCLUDING ALL)")
    schema.migrate(usage.conn)
    usage.conn.execute("DROP TABLE old")
    usage.conn.execute(
        "DROP VIEW merchant_usage_hourly, merchant_usage_weekly, merchant_usage_monthly, usage_explained"
    )
    usage.aggregate(TODAY)  # no run needs them
    schema.migrate(usage.conn)
    assert values(curve(usage)) == [5]


# What somebody else has changed.


@pytest.fixture
def grown(usage: Usage) -> Usage:
    """Two counters of a day that is over, each with a curve."""
    for value in (5, 7, 9):
        usage.write({key("acme"): value, key("other"): 2 * value})
        usage.aggregate()
    return usage


def report_of(usage: Usage) -> DateReport:
    (report,) = usage.aggregate().reports
    return report


POINT = "UPDATE usage_hourly_history SET {} WHERE merchant_id = 'acme' AND metric_value = 5"


@pytest.mark.parametrize(
    "change",
    [
        POINT.format("metric_value = 8"),
        POINT.format("metric_value = 10"),
        POINT.format("held_since = now() + interval '1 h'"),
        "UPDATE merchant_usage SET updated_at = '2026-11-01' WHERE merchant_id = 'acme'",
        "DELETE FROM merchant_usage WHERE merchant_id = 'acme'; INSERT INTO merchant_usage"
        " (merchant_id, date, metric_type, metric_value) VALUES ('acme', '2026-11-23', 'queries', 1)",
    ],
    ids=["higher than the next", "higher than the row", "later than the row", "row before its past", "row lowered"],
)
def test_what_somebody_else_has_changed_is_named(grown: Usage, change: str, logged: list[str]) -> None:
    grown.conn.execute(change.encode())
    if "DELETE" in change:
        grown.client.set(raw(key("acme")), 1)
    report = report_of(grown)
    assert report.verdict == "verified"
    assert report.error is None
    assert report.broken_curves == 1
    assert "the hourly history of 1 does not lead there" in report.totals
    (told,) = [sentence for sentence in logged if "hourly history" in sentence and "does not lead to" in sentence]
    assert "1 counter(s) of 2026-11-23" in told
    assert str(key("acme")) in told
    assert_adds_up(grown)


def test_history_without_a_row_is_named(grown: Usage) -> None:
    grown.client.delete(raw(key("acme")))
    grown.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'acme'")
    assert report_of(grown).broken_curves == 1


def test_nothing_is_named_of_what_runs_and_people_did(grown: Usage, logged: list[str]) -> None:
    grown.write({key("acme"): 3, key("other"): 1})
    grown.aggregate()
    decide(grown.client, grown.conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(key("acme")))
    decide(grown.client, grown.conn, Ruling(Decision.CARRY, "a person"), "usage", key=raw(key("other")))
    grown.write({key("acme"): 4, key("other"): 9})
    assert report_of(grown).broken_curves == 0
    assert [sentence for sentence in logged if "hourly history" in sentence] == []
    assert values(curve(grown, key("acme"))) == [5, 2, 2, "-6 corrected", 1]
    assert values(curve(grown, key("other"))) == [10, 4, 4, "1 corrected", 8]
    assert_adds_up(grown)


def test_of_many_a_few_are_named(usage: Usage, logged: list[str]) -> None:
    counters = [key(f"m{number}") for number in range(9)]
    for value in (5, 7):
        usage.write(dict.fromkeys(counters, value))
        usage.aggregate()
    usage.conn.execute("UPDATE usage_hourly_history SET metric_value = 8")
    assert report_of(usage).broken_curves == 9
    (told,) = [sentence for sentence in logged if "hourly history" in sentence and "does not lead to" in sentence]
    assert told.count(" queries of 2026-11-23") == 5
    assert "and 4 more" in told
