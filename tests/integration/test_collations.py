"""The work is exact whatever deterministic collation the application's columns have; any other is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from local.servers import Postgres
from merchant_usage.connections import prepare
from merchant_usage.errors import SchemaError
from merchant_usage.model.dead_letter import Reason
from merchant_usage.sink import period, schema
from merchant_usage.sink.period import Period
from merchant_usage.sink.queries import query
from merchant_usage.steps.cleanup import OldDates, clean_up
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

NAMES = ["A", "a", "B", "b-b", "bb", "b b", "\u00e9", "e\u0301", "Z", "\u4e2d", "0"]
MERGING = "CREATE COLLATION merging (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"

TABLE = """
CREATE TABLE merchant_usage (
    merchant_id text {} NOT NULL,
    date date NOT NULL,
    metric_type text {} NOT NULL,
    metric_value bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, date, metric_type)
)
"""


def make(conn: Connection, of_merchants: str = "default", of_metrics: str = "default") -> None:
    """The application's table."""
    collations = [sql.SQL("COLLATE {}").format(sql.Identifier(name)) for name in (of_merchants, of_metrics)]
    conn.execute(sql.SQL(TABLE).format(*collations))


@pytest.fixture
def empty15(postgres15: Postgres) -> Iterator[Connection]:
    """A connection to an empty database of PostgreSQL 15, which has the collations of ICU."""
    with psycopg.connect(postgres15.url_of("postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS collations WITH (FORCE)")
        admin.execute("CREATE DATABASE collations TEMPLATE template0")
    with psycopg.connect(postgres15.url_of("collations"), autocommit=True) as conn:
        yield prepare(conn)


def work(redis_client: redis.Redis, conn: Connection) -> None:
    """All that runs do, with ids that languages sort and compare otherwise than bytes."""
    schema.migrate(conn)
    schema.migrate(conn)
    usage = Usage(redis_client, conn, count(1))
    expected = {
        key(name, day, metric): n
        for n, (name, day, metric) in enumerate(
            ((name, day, metric) for name in NAMES for day in (YESTERDAY, TODAY) for metric in ("a", "B")), 1
        )
    }
    usage.write(expected)
    assert usage.verdicts(usage.aggregate(YESTERDAY, TODAY)) == {YESTERDAY: "verified", TODAY: "verified"}
    assert usage.rows() == expected

    # Some grow, of some merchants alone.
    for name in ("A", "\u00e9"):
        expected[key(name, TODAY, "B")] += 100
    usage.write(expected)
    usage.aggregate(YESTERDAY, TODAY, merchants=("A", "\u00e9", "Z"))
    assert usage.rows() == expected

    # Two are too low, and one is gone, though its row is there.
    for name in ("a", "b b"):
        usage.write({key(name, YESTERDAY, "a"): 0})
    redis_client.delete(raw(key("Z", YESTERDAY, "B")))
    usage.aggregate(YESTERDAY, TODAY)
    assert usage.rows() == expected
    assert {letter.reason for letter in usage.letters()} == {Reason.COUNTER_REGRESSED}
    assert {letter.redis_key for letter in usage.letters()} >= {
        raw(key(name, metric_type="a")) for name in ("a", "b b")
    }
    for letter in usage.letters():
        decide(redis_client, conn, Ruling(Decision.CARRY, "test"), "usage", key=letter.redis_key)
    for name in ("a", "b b"):
        usage.write({key(name, YESTERDAY, "a"): 3})
        expected[key(name, YESTERDAY, "a")] += 3
    assert usage.verdicts(usage.aggregate(YESTERDAY, TODAY)) == {YESTERDAY: "verified", TODAY: "verified"}
    assert usage.rows() == expected

    stale = [key(name, YESTERDAY, metric) for name in NAMES for metric in ("a", "B")]
    dates = OldDates(frozenset([YESTERDAY]), YESTERDAY)
    done = clean_up(redis_client, conn, lambda: stale, dates, settings(delete_stale_keys=True))
    assert done.cleaned.deleted == len(stale) - 1
    assert usage.rows() == expected


DETERMINISTIC = [("C.utf8", "default"), ("default", "POSIX"), ("C.utf8", "C.utf8"), ("POSIX", "C.utf8"), ("C", "C")]


@pytest.mark.parametrize(("of_merchants", "of_metrics"), DETERMINISTIC)
def test_collation_of_the_application(
    empty_database: Connection, redis_client: redis.Redis, of_merchants: str, of_metrics: str
) -> None:
    make(empty_database, of_merchants, of_metrics)
    work(redis_client, empty_database)


OF_ICU = [("und-x-icu", "default"), ("default", "en-x-icu"), ("de-x-icu", "und-x-icu"), ("C", "tr-x-icu")]


@pytest.mark.parametrize(("of_merchants", "of_metrics"), OF_ICU)
def test_collation_of_icu(empty15: Connection, redis_client: redis.Redis, of_merchants: str, of_metrics: str) -> None:
    make(empty15, of_merchants, of_metrics)
    work(redis_client, empty15)


@pytest.mark.parametrize("of_table", ["default", "C", "und-x-icu"])
def test_database_of_icu(postgres15: Postgres, redis_client: redis.Redis, of_table: str) -> None:
    with psycopg.connect(postgres15.url_of("postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS icu WITH (FORCE)")
        admin.execute("CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
    with psycopg.connect(postgres15.url_of("icu"), autocommit=True) as conn:
        make(conn, of_table, of_table)
        work(redis_client, prepare(conn))


def test_collation_that_takes_ids_for_the_same_is_refused(empty15: Connection) -> None:
    empty15.execute(MERGING)
    make(empty15, "merging")
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty15)
    assert (
        "column merchant_usage.merchant_id has the collation merging, which takes different ids for the same, and any "
        'deterministic collation will do (ALTER TABLE merchant_usage ALTER COLUMN merchant_id TYPE text COLLATE "C")'
    ) in str(raised.value)

    (remedy,) = [part.split(")")[0] for part in str(raised.value).split("(") if part.startswith("ALTER")]
    empty15.execute(remedy.encode())
    schema.migrate(empty15)
    empty15.execute("DROP VIEW merchant_usage_hourly, merchant_usage_weekly, merchant_usage_monthly, usage_explained")
    empty15.execute("ALTER TABLE merchant_usage ALTER COLUMN metric_type TYPE text COLLATE merging")
    with pytest.raises(SchemaError, match=r"merchant_usage\.metric_type has the collation merging"):
        schema.check(empty15)


def test_key_that_takes_ids_for_the_same_is_refused(empty15: Connection) -> None:
    empty15.execute(MERGING)
    make(empty15)
    empty15.execute("CREATE UNIQUE INDEX ON merchant_usage (merchant_id COLLATE merging, date, metric_type)")
    with pytest.raises(
        SchemaError, match=r"key of merchant_usage on \(date, merchant_id, metric_type\) has the collation merging"
    ):
        schema.migrate(empty15)


@pytest.mark.parametrize("of_merchants", ["C", "default", "C.utf8"])
def test_rows_of_a_page_are_found_by_the_key(
    empty_database: Connection, redis_client: redis.Redis, of_merchants: str
) -> None:
    """In the column's own collation: no other can use its index."""
    make(empty_database, of_merchants)
    schema.migrate(empty_database)
    usage = Usage(redis_client, empty_database, count(1))
    usage.write({key(name, TODAY): 1 for name in NAMES})
    usage.store_only(TODAY, now=NOW)
    empty_database.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)"
        " SELECT 'm' || n, current_date, 'queries', n FROM generate_series(1, 3000) AS n"
    )
    empty_database.execute("ANALYZE")
    groups = [{"page": 0, "first": "queries", "last": "queries", "merchant_ids": NAMES}]
    parameters = {"groups": json.dumps(groups), "date": TODAY}
    explained = empty_database.execute(b"EXPLAIN " + query("select_pages"), parameters).fetchall()
    assert any("Index Cond: ((merchant_id = " in line for (line,) in explained), explained


@pytest.mark.parametrize("collation", ["und-x-icu", "C"])
def test_evidence_is_in_the_order_of_bytes(empty15: Connection, redis_client: redis.Redis, collation: str) -> None:
    make(empty15, collation, collation)
    schema.migrate(empty15)
    usage = Usage(redis_client, empty15, count(1))
    usage.write({key(name, metric_type=metric): 1 for name in NAMES for metric in NAMES})
    usage.aggregate()
    asked = Period(YESTERDAY, YESTERDAY)
    with period.snapshot(empty15):
        rows = [(row.merchant_id, row.metric_type) for row in period.usage(empty15, asked)]
        happened = [row.merchant_id for row in period.events(empty15, asked)]
    assert rows == sorted((merchant, metric) for merchant in NAMES for metric in NAMES)
    assert happened == sorted(name for name in NAMES for _ in NAMES)
