"""The month that the demo makes up holds what there is to be looked at, and is as the engine leaves any month."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis
from psycopg import Connection

from local.demo import past
from local.demo.month import FILE, Month, begin_month
from local.demo.servers import Servers
from local.rhythm import MERCHANTS, METRICS, usage_of
from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.connections import prepare
from merchant_usage.model.audit import SealState
from merchant_usage.sink import schema
from merchant_usage.steps.audit import audit

DAY = dt.timedelta(days=1)
SENTINEL = "INSERT INTO merchant_usage VALUES ('sentinel', current_date, 'q', 1)"


class Made(NamedTuple):
    servers: Servers
    conn: Connection
    client: redis.Redis
    folder: Path
    until: dt.datetime


@contextmanager
def empty_servers(postgres: Postgres, database: str, folder: Path) -> Iterator[Made]:
    url = postgres.create_database(database)
    until = clock.now().replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=2)
    with (
        Valkey(folder / "valkey") as valkey,
        psycopg.connect(url, autocommit=True) as conn,
        redis.Redis.from_url(valkey.url) as client,
    ):
        schema.migrate(prepare(conn))
        yield Made(Servers(valkey.url, url, own_redis=True, own_postgres=True), conn, client, folder, until)


@pytest.fixture(scope="module")
def made(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A month of its own."""
    with empty_servers(postgres, f"month_{os.getpid()}", tmp_path_factory.mktemp("month")) as empty:
        begin(empty).wait()
        yield empty


def begin(made: Made) -> Month:
    return begin_month(made.servers, made.conn, made.folder, made.until)


@pytest.fixture
def last(made: Made) -> dt.date:
    return made.until.date()


def test_every_day_is_proven_but_the_one_that_waits(made: Made, last: dt.date) -> None:
    rows = made.conn.execute(
        "SELECT DISTINCT ON (usage_date) usage_date, verdict FROM usage_run ORDER BY usage_date, started_at DESC"
    ).fetchall()
    waits = past.FELL_AND_WAITS.key(last).date
    found: dict[dt.date, str] = dict(rows)
    # Shortly after midnight nothing of the last day has been read yet.
    found.pop(last, None)
    days = [last - n * DAY for n in range(1, past.DAYS + 1)]
    assert found == {day: "mismatch" if day == waits else "verified" for day in days}
    assert begin(made).undecided == {waits}


def test_a_counter_waits_for_a_decision_and_its_key_lives(made: Made, last: dt.date) -> None:
    key = past.FELL_AND_WAITS.key(last)
    raw = f"usage:{key.merchant_id}:{key.date}:{key.metric_type}".encode()
    letters = made.conn.execute("SELECT redis_key, reason FROM usage_dead_letter WHERE resolved_at IS NULL").fetchall()
    assert letters == [(raw, "counter_regressed")]
    assert made.client.ttl(raw) > 0


def test_another_one_was_decided_by_somebody_with_a_reason(made: Made, last: dt.date) -> None:
    (decision,) = made.conn.execute(
        "SELECT usage_date, decision, decided_by, reason, value_before > value_after, decided_at::date"
        " FROM usage_decision"
    ).fetchall()
    date = past.FELL_AND_WAS_DECIDED.key(last).date
    assert decision == (date, "accept", "anna", past.DECIDED.reason, True, date + DAY)


def test_a_day_is_sealed_anew_for_what_came_late(made: Made, last: dt.date) -> None:
    seals = made.conn.execute("SELECT usage_date, version, reason FROM usage_seal WHERE version > 1").fetchall()
    assert seals == [(past.CAME_LATE.key(last).date, 2, "late")]
    corrections = made.conn.execute("SELECT merchant_id, difference FROM merchant_usage_corrections").fetchall()
    assert corrections == [(past.CAME_LATE.merchant, past.LATE_UNITS)]


def test_the_spike_stands_out_of_its_hours(made: Made, last: dt.date) -> None:
    key = past.SPIKE.key(last)
    hours = made.conn.execute(
        "SELECT extract(hour FROM from_at)::int, metric_value FROM merchant_usage_hourly"
        " WHERE merchant_id = %s AND date = %s AND metric_type = %s",
        [key.merchant_id, key.date, key.metric_type],
    ).fetchall()
    assert len(hours) == 24
    highest = sorted(hours, key=lambda hour: -hour[1])
    assert {hour for hour, _ in highest[:3]} == {13, 14, 15}
    assert highest[2][1] > 5 * highest[3][1]


def test_what_is_sealed_is_intact_and_all_of_it_is_in_order(made: Made, last: dt.date) -> None:
    found = audit(made.conn, last - past.DAYS * DAY, last - DAY)
    states = {each.date: each.state for each in found.dates}
    waits = past.FELL_AND_WAITS.key(last).date
    assert {date for date, state in states.items() if state is not SealState.INTACT} <= {waits, last - DAY}
    assert not found.chain
    sealed_at = [row[0] for row in made.conn.execute("SELECT sealed_at FROM usage_seal ORDER BY seal_number")]
    assert sealed_at == sorted(sealed_at)


def test_redis_has_the_last_days_and_forgets_them_as_it_should(made: Made, last: dt.date) -> None:
    keys = [key.decode() for key in made.client.scan_iter(count=1000)]
    now = clock.now()
    # In the first hours of a day the month still ends with the day before.
    kept = {now.date() - n * DAY for n in range(1, 8)}
    assert {key.rsplit(":", 2)[1] for key in keys} >= {str(date) for date in kept if date <= last}
    for key in keys:
        date = dt.date.fromisoformat(key.rsplit(":", 2)[1])
        midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
        ends = now + dt.timedelta(seconds=made.client.ttl(key))
        assert midnight + 7 * DAY <= ends <= midnight + 10 * DAY


def test_nothing_of_the_other_clock_is_left(made: Made) -> None:
    assert made.conn.execute("SELECT to_regnamespace('usage_demo_clock')").fetchone() == (None,)


def test_it_is_made_once(made: Made) -> None:
    before = made.conn.execute("SELECT count(*) FROM usage_run").fetchone()
    again = begin_month(made.servers, made.conn, made.folder, made.until + DAY)
    assert not again.is_being_made
    assert again.until == made.until
    assert made.conn.execute("SELECT count(*) FROM usage_run").fetchone() == before


def test_what_was_left_half_done_is_made_anew(postgres: Postgres, tmp_path: Path) -> None:
    with empty_servers(postgres, f"half_a_month_{os.getpid()}", tmp_path) as half:
        (half.folder / FILE).write_text('{"until": "2026-01-01T00:00:00+00:00", "whole": false}')
        half.conn.execute(SENTINEL)
        half.conn.execute("INSERT INTO usage_run VALUES ('r', current_date, 'cli', NULL, true, now())")
        half.client.set("usage:sentinel:2026-01-01:q", 1)
        month = begin(half)
        try:
            assert (month.until, month.is_being_made) == (half.until, True)
            assert half.conn.execute("SELECT FROM merchant_usage WHERE merchant_id = 'sentinel'").fetchall() == []
            assert not half.client.exists("usage:sentinel:2026-01-01:q")
        finally:
            month.stop()


def test_where_a_demo_has_been_without_one_none_is_made(postgres: Postgres, tmp_path: Path) -> None:
    with empty_servers(postgres, f"no_month_{os.getpid()}", tmp_path) as other:
        other.conn.execute("INSERT INTO usage_run VALUES ('r', current_date, 'cli', NULL, true, now())")
        month = begin(other)
        assert (month.until, month.is_being_made, month.found, month.undecided) == (None, False, [], frozenset())


@pytest.mark.parametrize("own", [(True, False), (False, True)], ids=["Redis", "PostgreSQL"])
def test_none_is_made_on_servers_of_other_people(made: Made, own: tuple[bool, bool]) -> None:
    servers = made.servers
    others = Servers(servers.redis_url, servers.postgres_url, own_redis=own[0], own_postgres=own[1])
    assert begin_month(others, made.conn, made.folder, made.until) == Month(made.folder)


def test_an_hour_is_the_same_whenever_it_is_asked_for() -> None:
    hour = dt.datetime(2026, 11, 20, 14, tzinfo=dt.UTC)
    usage = dict(usage_of(hour))
    assert usage == dict(usage_of(hour))
    assert usage != dict(usage_of(hour + DAY))
    assert {key.merchant_id for key in usage} == set(MERCHANTS)
    assert {key.metric_type for key in usage} == set(METRICS)
