"""A `merchant_usage` that the application made in partitions by month: by the SQL of the docs."""

from __future__ import annotations

import datetime as dt
import re
from itertools import count

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from merchant_usage.driver_errors import explained
from merchant_usage.errors import SchemaError, UpsertFailed, UsageMismatch
from merchant_usage.model.dead_letter import Reason
from merchant_usage.sink import schema
from merchant_usage.steps.cleanup import delete_stale
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import PROJECT, TODAY, YESTERDAY, Usage, key, raw

OCTOBER, NOVEMBER, DECEMBER = dt.date(2026, 10, 31), dt.date(2026, 11, 1), dt.date(2026, 12, 1)
IN_NOVEMBER = dt.datetime(2026, 11, 2, 12, 0, tzinfo=dt.UTC)
IN_DECEMBER = dt.datetime(2026, 12, 1, 12, 0, tzinfo=dt.UTC)


def taught_sql() -> tuple[str, str]:
    """The two statements of the docs: the table, and November."""
    page = (PROJECT / "docs" / "howto" / "partitions.md").read_text(encoding="utf-8")
    table = re.search(r"CREATE TABLE merchant_usage \(.*?PARTITION BY RANGE \(date\);", page, re.DOTALL)
    month = re.search(r"CREATE TABLE merchant_usage_2026_11 .*?;", page, re.DOTALL)
    assert table
    assert month
    return table[0], month[0]


def make(conn: Connection, statement: str) -> None:
    conn.execute(statement.encode())


def month_sql(first: dt.date) -> str:
    """The statement of the docs for another month."""
    bounds = iter([first, (first + dt.timedelta(days=31)).replace(day=1)])
    named = taught_sql()[1].replace("2026_11", f"{first:%Y_%m}")
    return re.sub(r"'[0-9-]{10}'", lambda _: f"'{next(bounds)}'", named)


@pytest.fixture
def usage(empty_database: Connection, redis_client: redis.Redis) -> Usage:
    """October and November are there, December is not."""
    for statement in (taught_sql()[0], month_sql(OCTOBER.replace(day=1)), taught_sql()[1]):
        make(empty_database, statement)
    schema.migrate(empty_database)
    return Usage(redis_client, empty_database, count(1))


def rows_of(usage: Usage, month: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(f"merchant_usage_{month}"))
    row = usage.conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_migration_can_be_repeated_and_months_added(usage: Usage) -> None:
    schema.check(usage.conn)
    schema.migrate(usage.conn)
    make(usage.conn, month_sql(DECEMBER))
    schema.migrate(usage.conn)
    schema.check(usage.conn)
    indexed = usage.conn.execute(
        "SELECT tablename FROM pg_indexes WHERE tablename LIKE 'merchant_usage_2026%' AND indexdef LIKE '%USING brin%'"
    ).fetchall()
    assert len(indexed) == 3 * 3, "a month made later has the three indexes too"


def test_a_range_over_two_months(usage: Usage) -> None:
    counters = {key(f"m{n}", day, metric): n for n in range(50) for day in (OCTOBER, NOVEMBER) for metric in "ab"}
    usage.write(counters)
    proof = usage.aggregate(OCTOBER, NOVEMBER, now=IN_NOVEMBER)
    assert usage.verdicts(proof) == {OCTOBER: "verified", NOVEMBER: "verified"}
    assert usage.rows() == counters
    assert (rows_of(usage, "2026_10"), rows_of(usage, "2026_11")) == (100, 100)
    before = usage.row_versions()
    usage.aggregate(OCTOBER, NOVEMBER, now=IN_NOVEMBER)
    assert usage.row_versions() == before, "unchanged rows are not written"
    grown = {counter: value + 1 for counter, value in counters.items() if value % 7 == 0}
    usage.write(grown)
    report = usage.aggregate(OCTOBER, NOVEMBER, now=IN_NOVEMBER).reports[0]
    assert (report.counts.inserted, report.counts.updated) == (0, len(grown) // 2)
    assert usage.rows() == {**counters, **grown}


def test_a_live_date(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5})
    stored = usage.store_only(TODAY)
    usage.write({key("acme", TODAY): 6})
    assert usage.prove(stored).reports[0].keys["growing"] == 1
    stored = usage.store_only(TODAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 5")
    with pytest.raises(UsageMismatch, match="Redis has 6, PostgreSQL has 5, this run read 6"):
        usage.prove(stored)


@pytest.mark.parametrize(
    ("decision", "after"), [(Decision.KEEP, 100), (Decision.ACCEPT, 5), (Decision.CARRY, 105)], ids=str
)
def test_a_counter_that_went_backwards_is_decided(usage: Usage, decision: Decision, after: int) -> None:
    usage.write({key("acme"): 100})
    usage.aggregate()
    usage.write({key("acme"): 5})
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "mismatch"}
    assert [letter.reason for letter in usage.letters()] == [Reason.COUNTER_REGRESSED]
    decide(usage.client, usage.conn, Ruling(decision, "tester"), "usage", key=raw(key("acme")))
    assert usage.rows() == {key("acme"): after}
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}


def test_clean_up(usage: Usage) -> None:
    usage.write({key("acme", OCTOBER): 5})
    usage.aggregate(OCTOBER)
    assert delete_stale(usage.client, usage.conn, [key("acme", OCTOBER)], [OCTOBER], "usage").deleted == 1


def test_a_month_that_nobody_made_is_one_clear_error(usage: Usage) -> None:
    """Not a merchant's fault: nobody is left out one by one, and nothing is tried again."""
    counters = {key(f"m{n}", DECEMBER): 1 for n in range(100)}
    usage.write(counters)
    with pytest.raises(SchemaError) as raised, explained():
        usage.aggregate(DECEMBER, now=IN_DECEMBER, run_id="too early")
    assert "no partition of relation" in str(raised.value)
    assert "2026-12-01" in str(raised.value)
    assert not raised.value.heals
    assert usage.rows() == {}
    (verdict, error) = usage.ledger("too early")[DECEMBER]
    assert verdict == "not_proven"
    assert error is not None
    assert "no partition of relation" in error
    make(usage.conn, month_sql(DECEMBER))
    assert usage.verdicts(usage.aggregate(DECEMBER, now=IN_DECEMBER)) == {DECEMBER: "verified"}
    assert usage.rows() == counters


def test_what_a_trigger_refuses_is_still_a_merchants_own_fault(usage: Usage) -> None:
    usage.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'closed account' USING ERRCODE = 'check_violation'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON merchant_usage FOR EACH ROW WHEN (NEW.merchant_id = 'bad')"
        " EXECUTE FUNCTION refuse()"
    )
    usage.write({key("bad"): 1, key("good"): 2})
    with pytest.raises(UpsertFailed, match="closed account"):
        usage.aggregate()
    assert usage.rows() == {key("good"): 2}


@pytest.mark.parametrize("instead", ["PRIMARY KEY (merchant_id, date, metric_type, metric_value)", "CHECK (true)"])
def test_a_partitioned_table_without_our_key(empty_database: Connection, instead: str) -> None:
    table, month = taught_sql()
    make(empty_database, table.replace("PRIMARY KEY (merchant_id, date, metric_type)", instead))
    make(empty_database, month)
    with pytest.raises(SchemaError, match="no unique key"):
        schema.migrate(empty_database)


def test_old_months_can_be_dropped(usage: Usage) -> None:
    usage.write({key("acme", OCTOBER): 5, key("acme", NOVEMBER): 6})
    usage.aggregate(OCTOBER, NOVEMBER, now=IN_NOVEMBER)
    usage.conn.execute("DROP TABLE merchant_usage_2026_10")
    usage.client.delete(raw(key("acme", OCTOBER)))
    assert usage.verdicts(usage.aggregate(NOVEMBER, now=IN_NOVEMBER)) == {NOVEMBER: "verified"}
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows_of(usage, "2026_10")


def test_storing_touches_no_month_but_its_own(usage: Usage, empty_database_url: str) -> None:
    """It neither reads years of history, nor waits for who drops an old month."""
    usage.write({key("acme"): 5, key("acme", TODAY): 5})
    usage.aggregate(YESTERDAY, TODAY)
    grown = {key("acme"): 6, key("acme", TODAY): 6, key("new", TODAY): 1}
    usage.write(grown)
    with psycopg.connect(empty_database_url) as owner:
        owner.execute("LOCK TABLE ONLY merchant_usage_2026_10 IN ACCESS EXCLUSIVE MODE")
        stored = usage.store_only(YESTERDAY, TODAY)
    assert usage.verdicts(usage.prove(stored)) == {YESTERDAY: "verified", TODAY: "verified"}
    assert usage.rows() == grown
