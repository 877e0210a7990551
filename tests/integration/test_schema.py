"""The schema is made, made twice, made by two at once, laid over the application's table, or refused clearly."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any, LiteralString

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from local.servers import Postgres
from merchant_usage.connections import prepare
from merchant_usage.errors import MIGRATE_COMMAND, SchemaError
from merchant_usage.sink import schema
from merchant_usage.sink.queries import SQL_FOLDER
from tests.support import TABLES, YESTERDAY, Usage, key

FILES = [
    "001_merchant_usage",
    "002_usage_dead_letter",
    "003_usage_run",
    "004_usage_reading",
    "005_usage_alert",
    "006_attempts_and_decisions",
    "007_long_names",
    "008_pruning",
    "009_source",
    "010_packed_readings",
    "011_absence",
    "012_hourly_history",
    "013_windows",
    "014_seals",
    "015_approvals",
    "016_corrections",
    "017_explained",
]

DESCRIBE = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = current_schema()::regnamespace
ORDER BY 1, 2
"""


def describe(conn: Connection) -> list[tuple[Any, ...]]:
    """All tables and indexes with their columns."""
    return conn.execute(DESCRIBE).fetchall()


def test_migration_makes_the_tables(empty_database: Connection) -> None:
    assert schema.migrate(empty_database) == FILES
    schema.check(empty_database)
    assert set(TABLES) <= {row[0] for row in describe(empty_database)}


def test_migration_can_be_repeated(usage: Usage) -> None:
    usage.write({key("acme"): 1})
    usage.aggregate()
    tables, everything = describe(usage.conn), usage.everything()
    assert schema.migrate(usage.conn) == FILES
    assert describe(usage.conn) == tables
    assert usage.everything() == everything


def test_repeated_migration_waits_for_no_reader(usage: Usage, database_url: str) -> None:
    """Nobody's queries are held up: what is there is not altered again."""
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT * FROM merchant_usage, usage_run, usage_dead_letter, usage_reading, usage_alert")
        usage.conn.execute("SET lock_timeout = '50ms'")
        schema.migrate(usage.conn)


def test_migrations_at_once(empty_database_url: str) -> None:
    together = Barrier(4)

    def migrate(_: int) -> list[str]:
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            together.wait()
            return schema.migrate(conn)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, range(4))) == [FILES] * 4


APPLICATION_TABLE = """
CREATE TABLE merchant_usage (
    id bigserial,
    merchant_id text NOT NULL,
    date date NOT NULL,
    metric_type text NOT NULL,
    metric_value bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    plan text DEFAULT 'free',
    note text NOT NULL DEFAULT '',
    twice bigint GENERATED ALWAYS AS (metric_value * 2) STORED,
    UNIQUE (metric_type, merchant_id, date)
);
INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, note)
VALUES ('acme', '2026-11-23', 'queries', 3, 'as before'), ('acme', '2020-01-01', 'queries', 9, 'long ago')
"""


def test_table_of_the_application_is_taken_as_it_is(empty_database: Connection, redis_client: redis.Redis) -> None:
    empty_database.execute(APPLICATION_TABLE)
    before = set(describe(empty_database))
    schema.migrate(empty_database)
    added = {row for row in describe(empty_database) if row[0] == "merchant_usage"} - before
    assert added == {("merchant_usage", "carried", "bigint", True, "0")}

    usage = Usage(redis_client, empty_database, count(1))
    usage.write({key("acme"): 5, key("new"): 1})
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}
    rows = empty_database.execute(
        "SELECT merchant_id, metric_value, plan, note, twice FROM merchant_usage ORDER BY metric_value"
    ).fetchall()
    assert rows == [
        ("new", 1, "free", "", 2),
        ("acme", 5, "free", "as before", 10),
        ("acme", 9, "free", "long ago", 18),
    ]


COLUMNS: dict[str, LiteralString] = {
    "merchant_id": "text",
    "date": "date",
    "metric_type": "text",
    "metric_value": "bigint",
    "created_at": "timestamptz DEFAULT now()",
    "updated_at": "timestamptz DEFAULT now()",
}
KEY = "PRIMARY KEY (merchant_id, date, metric_type)"


def table(constraint: LiteralString = KEY, **changes: LiteralString | None) -> LiteralString:
    """The application's table, but for these columns (None: without it)."""
    columns = {name: kind for name, kind in {**COLUMNS, **changes}.items() if kind is not None}
    parts = [f"{name} {kind}" for name, kind in columns.items()] + ([constraint] if constraint else [])
    return f"CREATE TABLE merchant_usage ({', '.join(parts)})"


NO_KEY = "merchant_usage has no unique key on exactly (merchant_id, date, metric_type)"
UNUSABLE = [
    pytest.param(
        table(metric_value="integer"), "column merchant_usage.metric_value is integer, it must be bigint", id="integer"
    ),
    pytest.param(
        table(metric_value="numeric"), "column merchant_usage.metric_value is numeric, it must be bigint", id="numeric"
    ),
    pytest.param(
        table(merchant_id="varchar(50)"),
        "column merchant_usage.merchant_id is character varying(50), it must be text",
        id="varchar",
    ),
    pytest.param(
        table(merchant_id="integer"),
        "column merchant_usage.merchant_id is integer, it must be text",
        id="numbers as ids",
    ),
    pytest.param(
        table(updated_at="timestamp DEFAULT now()"),
        "column merchant_usage.updated_at is timestamp without time zone, it must be timestamp with time zone",
        id="no time zone",
    ),
    pytest.param(
        table(date="timestamptz"),
        "column merchant_usage.date is timestamp with time zone, it must be date",
        id="moment",
    ),
    pytest.param(table(date="text"), "column merchant_usage.date is text, it must be date", id="date as text"),
    pytest.param(table(date="jsonb"), "column merchant_usage.date is jsonb, it must be date", id="date as JSON"),
    pytest.param(
        table(carried="integer NOT NULL DEFAULT 0"),
        "column merchant_usage.carried is integer, it must be bigint",
        id="carried of another type",
    ),
    pytest.param(
        table(metric_value=None, value="bigint"),
        "column merchant_usage.metric_value (bigint) is missing",
        id="column missing",
    ),
    pytest.param(
        table("PRIMARY KEY (merchant_id, metric_type)", date=None, day="date"),
        f"column merchant_usage.date (date) is missing; {NO_KEY}",
        id="date missing",
    ),
    pytest.param(
        table(plan="text NOT NULL"),
        "column merchant_usage.plan is NOT NULL without a default, which we cannot fill",
        id="extra column must be given",
    ),
    pytest.param(table(""), NO_KEY, id="no key"),
    pytest.param(table("UNIQUE (merchant_id, date)"), NO_KEY, id="key too short"),
    pytest.param(table("UNIQUE (merchant_id, date, metric_type, metric_value)"), NO_KEY, id="key too long"),
    pytest.param(
        table("UNIQUE (merchant_id, date) INCLUDE (metric_type)"), NO_KEY, id="key too short, but for what it carries"
    ),
    pytest.param(
        table("UNIQUE (merchant_id, date, metric_type) DEFERRABLE INITIALLY DEFERRED"), NO_KEY, id="deferred key"
    ),
    pytest.param(
        table("") + "; CREATE UNIQUE INDEX ON merchant_usage (merchant_id, date, metric_type) WHERE metric_value > 0",
        NO_KEY,
        id="partial key",
    ),
    pytest.param(
        table("") + "; CREATE UNIQUE INDEX ON merchant_usage (lower(merchant_id), date, metric_type)",
        NO_KEY,
        id="key on an expression",
    ),
    pytest.param(
        table("") + "; CREATE INDEX ON merchant_usage (merchant_id, date, metric_type)", NO_KEY, id="index not unique"
    ),
]


@pytest.mark.parametrize(("made", "told"), UNUSABLE)
def test_table_that_cannot_be_used_is_named_and_left(
    empty_database: Connection, made: LiteralString, told: str
) -> None:
    empty_database.execute(made)
    before = describe(empty_database)
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    assert str(raised.value) == f"The schema in PostgreSQL cannot be used: {told}."
    with pytest.raises(SchemaError) as checked:
        schema.check(empty_database)
    assert told in str(checked.value)
    assert MIGRATE_COMMAND not in str(checked.value), "it would refuse the same"
    assert describe(empty_database) == before, "left as it was"


@pytest.mark.parametrize(
    "constraint",
    [
        "UNIQUE (date, metric_type, merchant_id)",
        "UNIQUE (merchant_id, date, metric_type) INCLUDE (metric_value)",
        "UNIQUE NULLS NOT DISTINCT (merchant_id, date, metric_type)",
    ],
)
def test_any_whole_unique_key_will_do(
    empty_database: Connection, redis_client: redis.Redis, constraint: LiteralString
) -> None:
    empty_database.execute(table(constraint))
    schema.migrate(empty_database)
    usage = Usage(redis_client, empty_database, count(1))
    for value in (1, 2):
        usage.write({key("acme"): value})
        usage.aggregate()
    assert usage.rows() == {key("acme"): 2}


def test_all_that_is_wrong_is_told_at_once(empty_database: Connection) -> None:
    made = table("", metric_value="integer", plan="text NOT NULL")
    empty_database.execute(made)
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    for told in ("metric_value is integer", "plan is NOT NULL", "no unique key"):
        assert told in str(raised.value)


def test_missing_schema_names_the_command_that_makes_it(empty_database: Connection, redis_client: redis.Redis) -> None:
    usage = Usage(redis_client, empty_database, count(1))
    with pytest.raises(SchemaError) as raised:
        usage.aggregate()
    assert str(raised.value).endswith(f"To create what is missing: {MIGRATE_COMMAND}")
    for name in TABLES:
        assert f"table {name} is missing" in str(raised.value)


@pytest.mark.parametrize("name", TABLES)
def test_each_missing_table_is_named_and_made_again(database: Connection, name: str) -> None:
    database.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(name)))
    with pytest.raises(SchemaError, match=f"cannot be used: table {name} is missing"):
        schema.check(database)
    schema.migrate(database)
    schema.check(database)


def test_missing_column_of_ours_is_named(database: Connection) -> None:
    database.execute("ALTER TABLE usage_run DROP COLUMN verdict CASCADE")
    with pytest.raises(SchemaError, match=r"column usage_run\.verdict \(text\) is missing"):
        schema.check(database)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_database_of_another_encoding_is_refused(postgres: Postgres, encoding: str) -> None:
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS latin")
        create = sql.SQL("CREATE DATABASE latin TEMPLATE template0 ENCODING {} LOCALE 'C'")
        admin.execute(create.format(sql.Literal(encoding)))
    with psycopg.connect(postgres.url_of("latin"), autocommit=True) as conn:
        with pytest.raises(SchemaError, match=f"the database's encoding is {encoding}, it must be UTF8"):
            schema.migrate(prepare(conn))
        assert describe(conn) == []


def test_schema_of_the_search_path_is_the_one_that_counts(
    empty_database: Connection, redis_client: redis.Redis
) -> None:
    empty_database.execute(table("", metric_value="text"))
    empty_database.execute("CREATE SCHEMA billing; SET search_path TO billing")
    schema.migrate(empty_database)
    usage = Usage(redis_client, empty_database, count(1))
    usage.write({key("acme"): 1})
    usage.aggregate()
    assert empty_database.execute("SELECT metric_value FROM billing.merchant_usage").fetchall() == [(1,)]
    assert empty_database.execute("SELECT * FROM public.merchant_usage").fetchall() == []


OF_A_MAPPER: dict[str, tuple[LiteralString, LiteralString]] = {
    "Prisma": (
        """CREATE TABLE "MerchantUsage" (
            "id" serial PRIMARY KEY,
            "merchantId" text NOT NULL,
            "date" date NOT NULL,
            "metricType" text NOT NULL,
            "metricValue" bigint NOT NULL,
            "createdAt" timestamptz NOT NULL DEFAULT now(),
            "updatedAt" timestamptz NOT NULL,
            UNIQUE ("merchantId", "date", "metricType")
        )""",
        'public."MerchantUsage"',
    ),
    "camel case": ('CREATE TABLE "merchantUsage" ("merchantId" text)', 'public."merchantUsage"'),
    "plural": ("CREATE TABLE merchant_usages (merchant_id text)", "public.merchant_usages"),
    "plural in camel case": ('CREATE TABLE "MerchantUsages" ("merchantId" text)', 'public."MerchantUsages"'),
    "view": ('CREATE VIEW "MerchantUsage" AS SELECT 1 AS "merchantId"', 'public."MerchantUsage"'),
}


@pytest.mark.parametrize("mapper", OF_A_MAPPER)
def test_table_of_a_mapper_is_named(empty_database: Connection, mapper: str) -> None:
    """Beside it an empty merchant_usage would be filled, and billing would read the other one."""
    made, name = OF_A_MAPPER[mapper]
    empty_database.execute(made)
    before = describe(empty_database)
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    told = str(raised.value)
    assert f"table merchant_usage is missing, but there is {name}, as an ORM names it" in told
    assert "merchant_usage (merchant_id text, date date, metric_type text, metric_value bigint, created_at" in told
    assert "unique key on (date, merchant_id, metric_type)" in told
    assert f"ALTER TABLE {name} RENAME TO merchant_usage" in told
    assert MIGRATE_COMMAND not in told
    assert describe(empty_database) == before
    with pytest.raises(SchemaError, match="table merchant_usage is missing") as checked:
        schema.check(empty_database)
    assert MIGRATE_COMMAND not in str(checked.value)


def test_table_of_a_mapper_can_be_renamed_as_it_is_told(empty_database: Connection, redis_client: redis.Redis) -> None:
    empty_database.execute(OF_A_MAPPER["Prisma"][0])
    empty_database.execute('ALTER TABLE public."MerchantUsage" RENAME TO merchant_usage')
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    told = str(raised.value)
    assert "no unique key" not in told
    assert "NOT NULL without a default" not in told
    remedies = re.findall(r"\((ALTER TABLE [^)]*)\)", told)
    assert [remedy.split()[-1] for remedy in remedies] == [
        "merchant_id",
        "metric_type",
        "metric_value",
        "created_at",
        "updated_at",
    ]
    for remedy in remedies:
        empty_database.execute(remedy.encode())
    schema.migrate(empty_database)
    usage = Usage(redis_client, empty_database, count(1))
    usage.write({key("acme"): 1})
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}


def test_table_that_only_looks_alike_may_stay(empty_database: Connection) -> None:
    """Where somebody made ours by hand, or in a schema of its own."""
    empty_database.execute('CREATE TABLE "MerchantUsage" ("merchantId" text)')
    empty_database.execute("CREATE SCHEMA billing; SET search_path TO billing")
    assert schema.migrate(empty_database) == FILES
    empty_database.execute("SET search_path TO public")
    empty_database.execute((SQL_FOLDER / "schema" / "001_merchant_usage.sql").read_bytes())
    assert schema.migrate(empty_database) == FILES


STRANGE: list[tuple[LiteralString, str]] = [
    ("CREATE TABLE usage_run (id bigint)", "column usage_run.usage_date (date) is missing"),
    ("CREATE TABLE usage_dead_letter (id bigint)", "column usage_dead_letter.redis_key (bytea) is missing"),
    ("CREATE TABLE usage_alert (id bigint)", "column usage_alert.alert_key (text) is missing"),
    ("SET search_path TO nowhere", "There is no schema to make tables in: search_path is nowhere"),
]


@pytest.mark.parametrize(("made", "told"), STRANGE)
def test_migration_that_fails_does_not_recommend_itself(
    empty_database: Connection, made: LiteralString, told: str
) -> None:
    empty_database.execute(made)
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    assert told in str(raised.value)
    assert MIGRATE_COMMAND not in str(raised.value)
